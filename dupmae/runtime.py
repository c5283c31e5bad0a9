"""Token ids → what the network says of each text: the graphs of `graph.py`, run by ONNX Runtime.

Left out: tokens before it, term weights after it (`encoder.py`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# From 1.29 on ONNX Runtime sends its maker what it is used for, and marks the user's folder with an
# id, unless this is set before it is imported. Who sets it otherwise means it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from dupmae.graph import MASKED, build_pool, build_reader
from dupmae.heads import HeadSettings
from dupmae.onnx_format import Graph
from dupmae.stored import StoredModel
from dupmae.types import Float32, Int64

RUNTIME = f"onnxruntime {onnxruntime.__version__}"


class Reading(NamedTuple):
    """What the network says of one text."""

    dense: Float32
    """(P,), not normalised."""
    log_gain: float
    terms: Int64
    """(n,) strictly increasing: the text's own, and with expansion others that it may get."""
    logits: Float32
    """(n,) maxima over the tokens that vote."""
    counts: Int64
    """(n,) how often each term occurs in the text."""
    length: int
    """Tokens that vote."""


_Counts = tuple[Int64, Int64]
"""A text's own terms, and how often each occurs."""
_Pooled = tuple[Int64, Float32, Int64]
"""`terms`, `logits` and `counts` of a Reading."""


class Network:
    """A model's graphs, loaded; several threads may read with them at once.

    Each `read` keeps to one thread, so that no sum depends on how many there are.
    """

    def __init__(self, model: StoredModel, heads: HeadSettings) -> None:
        weights = model.weights
        self.vocabulary_size = model.tokenizer.get_vocab_size()
        self._attends = heads.cls_attention
        self._words_VD = weights["lm.bert.embeddings.word_embeddings.weight"]
        """As stored, often in float16: only what a batch looks up becomes float32."""
        self._reader = _Session(build_reader(model.body, heads, weights))
        self._pool_given = _Session(build_pool(self._words_VD, given=True))
        self._neighbours_VK = weights.get("term_neighbours")
        if heads.expansion and self._neighbours_VK is None:
            head_VD = self._words_VD[: self.vocabulary_size]
            self._pool_all = _Session(build_pool(head_VD, given=False))
        places_LD = weights["lm.bert.embeddings.position_embeddings.weight"].astype(np.float32)
        self._places_LD = places_LD + weights["lm.bert.embeddings.token_type_embeddings.weight"][0]
        self._bias_V = weights["lm.cls.predictions.bias"].astype(np.float32)
        self._log_gain = float(weights["query_log_gain.bias"][0])
        self._votes_V = np.arange(len(self._words_VD)) < self.vocabulary_size
        self._votes_V[list(model.special_ids)] = False

    def read(self, ids: Sequence[Sequence[int]], *, expands: bool = False) -> list[Reading]:
        """Read one batch.

        Args:
            ids: at least one text, each with at least [CLS] and [SEP].
            expands: also return terms that the texts do not contain; only with `expansion`.
        """
        lengths_B = np.array([len(text) for text in ids], dtype=np.int32)
        padding_BL = np.arange(lengths_B.max()) >= lengths_B[:, None]
        tokens_BL = np.zeros(padding_BL.shape, dtype=np.int64)
        tokens_BL[~padding_BL] = np.concatenate([np.asarray(text, np.int64) for text in ids])
        votes_BL = self._votes_V[tokens_BL] & ~padding_BL
        own = [
            np.unique(tokens[votes], return_counts=True)
            for tokens, votes in zip(tokens_BL, votes_BL, strict=True)
        ]
        inputs = {
            "embedded": self._words_VD[tokens_BL] + self._places_LD[: lengths_B.max()],
            "lengths": lengths_B,
        }
        if self._attends:
            inputs["padding"] = _masked(padding_BL)[:, None]
        dense_BP, log_gain_B1, states_BLD = self._reader.run(inputs, "dense", "log_gain", "states")
        inputs = {"states": states_BLD, "silent": _masked(~votes_BL)[:, :, None]}
        own_terms = [terms for terms, _ in own]
        wanted = self._with_neighbours(own_terms) if expands else own_terms
        if wanted is None:
            terms = self._all_terms(inputs, own)
        else:
            terms = self._given_terms(inputs, own, wanted)
        return [
            Reading(dense_P, float(gain) + self._log_gain, *of_text, int(counts.sum()))
            for dense_P, gain, of_text, (_, counts) in zip(
                dense_BP, log_gain_B1[:, 0], terms, own, strict=True
            )
        ]

    def _given_terms(
        self, inputs: dict[str, Any], own: Sequence[_Counts], wanted: Sequence[Int64]
    ) -> list[_Pooled]:
        inputs["wanted"] = _padded(wanted)
        (logits_BN,) = self._pool_given.run(inputs, "logits")
        pooled = []
        for logits_N, terms, (own_terms, own_counts) in zip(logits_BN, wanted, own, strict=True):
            counts_N = np.zeros(len(terms), dtype=np.int64)
            counts_N[np.searchsorted(terms, own_terms)] = own_counts
            pooled.append((terms, logits_N[: len(terms)] + self._bias_V[terms], counts_N))
        return pooled

    def _all_terms(self, inputs: dict[str, Any], own: Sequence[_Counts]) -> list[_Pooled]:
        (logits_BV,) = self._pool_all.run(inputs, "logits")
        logits_BV += self._bias_V[: self.vocabulary_size]
        pooled = []
        for logits_V, (own_terms, own_counts) in zip(logits_BV, own, strict=True):
            counts_V = np.zeros(self.vocabulary_size, dtype=np.int64)
            counts_V[own_terms] = own_counts
            # Every activation makes 0 of the rest: most of the vocabulary ends here.
            terms = np.flatnonzero((logits_V > 0) & self._votes_V[: self.vocabulary_size])
            pooled.append((terms, logits_V[terms], counts_V[terms]))
        return pooled

    def _with_neighbours(self, own: Sequence[Int64]) -> list[Int64] | None:
        """Return each text's terms and those that they may bring; None if that may be any."""
        if self._neighbours_VK is None:
            return None
        wanted = []
        for own_N in own:
            wanted_V = np.zeros_like(self._votes_V)
            wanted_V[own_N] = True
            wanted_V[self._neighbours_VK[own_N]] = True
            wanted.append(np.flatnonzero(wanted_V & self._votes_V))
        return wanted


class _Session:
    """A graph that ONNX Runtime has loaded."""

    def __init__(self, graph: Graph) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # it keeps a plan for each of thousands of shapes
        options.log_severity_level = 3
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in graph.weights.values()]
        options.add_external_initializers(list(graph.weights), values)
        # Weights are not copied: they must live as long as the session.
        self._weights = (graph.weights, values)
        self._session = onnxruntime.InferenceSession(
            graph.serialize(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: dict[str, Any], *outputs: str) -> list[Any]:
        """Return the named outputs."""
        found: list[Any] = self._session.run(list(outputs), inputs)
        return found


def _masked(where: NDArray[np.bool_]) -> Float32:
    return np.where(where, np.float32(MASKED), np.float32(0))


def _padded(rows: Sequence[Int64]) -> Int64:
    """Return rows (B, N), the short ones padded with zeros; at least one column."""
    padded_BN = np.zeros((len(rows), max(1, *map(len, rows))), dtype=np.int64)
    for padded_N, row in zip(padded_BN, rows, strict=True):
        padded_N[: len(row)] = row
    return padded_BN
