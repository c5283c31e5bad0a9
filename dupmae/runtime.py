"""Token ids → what the network says of each text: the graph of `graph.py`, run by ONNX Runtime.

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

from dupmae.graph import MASKED, build_graph
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
    """(n,) strictly increasing: the text's own, or with expansion all of a logit above 0."""
    logits: Float32
    """(n,) maxima over the tokens that vote."""
    counts: Int64
    """(n,) how often each term occurs in the text."""
    length: int
    """Tokens that vote."""


class Network:
    """A model's graph, loaded; several threads may read with it at once.

    Each `read` keeps to one thread, so that no sum depends on how many there are.
    """

    def __init__(self, model: StoredModel, heads: HeadSettings) -> None:
        weights = model.weights
        self.vocabulary_size = model.tokenizer.get_vocab_size()
        self._expands = heads.expansion > 0
        self._attends = heads.cls_attention
        graph = build_graph(model.body, heads, weights, self.vocabulary_size)
        self._session, self._held = _open(graph)
        self._words_VD = weights["lm.bert.embeddings.word_embeddings.weight"]
        """As stored, often in float16: only what a batch looks up becomes float32."""
        places_LD = weights["lm.bert.embeddings.position_embeddings.weight"].astype(np.float32)
        self._places_LD = places_LD + weights["lm.bert.embeddings.token_type_embeddings.weight"][0]
        self._bias_V = weights["lm.cls.predictions.bias"].astype(np.float32)
        self._log_gain = float(weights["query_log_gain.bias"][0])
        self._votes_V = np.arange(len(self._words_VD)) < self.vocabulary_size
        self._votes_V[list(model.special_ids)] = False

    def read(self, ids: Sequence[Sequence[int]]) -> list[Reading]:
        """Read one batch: at least one text, each with at least [CLS] and [SEP]."""
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
            "silent": _masked(~votes_BL)[:, :, None],
        }
        if self._attends:
            inputs["padding"] = _masked(padding_BL)[:, None]
        if not self._expands:
            inputs["own"] = self._look_up([terms for terms, _ in own])
        dense_BP, log_gain_B1, logits = self._session.run(["dense", "log_gain", "logits"], inputs)
        return [
            Reading(dense_P, float(gain) + self._log_gain, *self._terms(logits_N, *of_text))
            for dense_P, gain, logits_N, of_text in zip(
                dense_BP, log_gain_B1[:, 0], logits, own, strict=True
            )
        ]

    def _look_up(self, terms: Sequence[Int64]) -> Float32:
        """Return the terms' word embeddings (B, N, D); rows are padded with those of term 0."""
        padded_BN = np.zeros((len(terms), max(1, *map(len, terms))), dtype=np.int64)
        for row, own in zip(padded_BN, terms, strict=True):
            row[: len(own)] = own
        return self._words_VD[padded_BN].astype(np.float32)

    def _terms(
        self, logits: Float32, own: Int64, own_counts: Int64
    ) -> tuple[Int64, Float32, Int64, int]:
        """Return terms, logits, counts and length of one text, of the graph's last output."""
        length = int(own_counts.sum())
        if not self._expands:
            return own, logits[: len(own)] + self._bias_V[own], own_counts, length
        size = self.vocabulary_size
        logits_V = logits + self._bias_V[:size]
        counts_V = np.zeros(size, dtype=np.int64)
        counts_V[own] = own_counts
        # Every activation makes 0 of the rest: most of the vocabulary ends here.
        terms = np.flatnonzero((logits_V > 0) & self._votes_V[:size])
        return terms, logits_V[terms], counts_V[terms], length


def _open(graph: Graph) -> tuple[onnxruntime.InferenceSession, list[Any]]:
    """Return a session and what must live as long as it: the weights, which it does not copy."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it keeps a plan for each of thousands of shapes
    options.log_severity_level = 3
    weights = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in graph.weights.values()]
    options.add_external_initializers(list(graph.weights), weights)
    session = onnxruntime.InferenceSession(
        graph.serialize(), options, providers=["CPUExecutionProvider"]
    )
    return session, [graph.weights, weights]


def _masked(where: NDArray[np.bool_]) -> Float32:
    return np.where(where, np.float32(MASKED), np.float32(0))
