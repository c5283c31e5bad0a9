"""Token ids → what the network says of each text: the graphs of `graph.py`, run by ONNX Runtime.

Left out: tokens before it (`base_encoder.py`), term weights after it (`reader.py`), and, where that
is compiled, a few short texts (`short.py`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# From 1.29 on ONNX Runtime sends its maker what it is used for, and marks the user's folder with an
# id, unless this is set before it is imported. Who sets it otherwise means it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from dupmae.graph import MASKED, build_pool, build_reader
from dupmae.heads import HeadSettings
from dupmae.onnx_format import Graph
from dupmae.readings import Reading
from dupmae.stored import StoredModel, Weights
from dupmae.types import Float32
from dupmae.vocabulary import Embeddings, terms_of

RUNTIME = f"onnxruntime {onnxruntime.__version__}"


class GraphNetwork:
    """A model's graphs, loaded: a `Network`.

    Each `read` keeps to one thread, so that no sum depends on how many there are.
    """

    def __init__(self, model: StoredModel, heads: HeadSettings) -> None:
        weights = model.weights
        self._terms = terms_of(model)
        self._embeddings = Embeddings.of(weights)
        self._attends = heads.cls_attention
        self._reader = Session.of(build_reader(model.body, heads, weights))
        words_VD = self._embeddings.words_VD
        self._pool_given = Session.of(build_pool(words_VD, given=True))
        if heads.expansion and "term_neighbours" not in weights:
            self._pool_all = Session.of(build_pool(words_VD[: self._terms.size], given=False))
        self._log_gain = float(weights["query_log_gain.bias"][0])

    def read(self, ids: Sequence[Sequence[int]], *, expands: bool = False) -> list[Reading]:
        """Read one batch; `Network.read` says what the arguments are."""
        batch = self._terms.batch(ids, expands=expands)
        longest = batch.lengths_B.max()
        padding_BL = np.arange(longest) >= batch.lengths_B[:, None]
        tokens_BL = np.zeros(padding_BL.shape, dtype=np.int64)
        tokens_BL[~padding_BL] = batch.tokens_T
        silent_BL = np.ones_like(padding_BL)
        silent_BL[~padding_BL] = ~batch.votes_T
        inputs: dict[str, NDArray[Any]] = {
            "embedded": self._embeddings.sum(tokens_BL),
            "lengths": batch.lengths_B,
        }
        if self._attends:
            inputs["padding"] = _masked(padding_BL)[:, None]
        dense_BP, log_gain_B1, states_BLD = self._reader.run(inputs, "dense", "log_gain", "states")
        inputs = {"states": states_BLD, "silent": _masked(silent_BL)[:, :, None]}
        if batch.wanted is None:
            (logits,) = self._pool_all.run(inputs, "logits")
        else:
            inputs["wanted"] = batch.padded_terms()
            (logits,) = self._pool_given.run(inputs, "logits")
        log_gain_B = log_gain_B1[:, 0].astype(np.float64) + self._log_gain
        return self._terms.readings(batch, dense_BP, log_gain_B, logits)


class Session:
    """A graph that ONNX Runtime has loaded."""

    def __init__(self, model: str | bytes, weights: Weights) -> None:
        """Load a graph.

        Args:
            model: a file's path, or its content.
            weights: what the graph leaves to be given.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # it keeps a plan for each of thousands of shapes
        options.log_severity_level = 3
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in weights.values()]
        options.add_external_initializers(list(weights), values)
        # Weights are not copied: they must live as long as the session.
        self._weights = (weights, values)
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

    @classmethod
    def of(cls, graph: Graph) -> Session:
        """Load a graph that was just made."""
        return cls(graph.serialize(), graph.weights)

    def run(self, inputs: dict[str, Any], *outputs: str) -> list[Any]:
        """Return the named outputs."""
        found: list[Any] = self._session.run(list(outputs), inputs)
        return found


def _masked(where: NDArray[np.bool_]) -> Float32:
    return np.where(where, np.float32(MASKED), np.float32(0))
