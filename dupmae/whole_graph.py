"""The network as one ONNX graph for others to run: from token ids to both vectors.

Nothing here runs it but the test of its making (`onnx_export.py`). It holds its weights, and needs
no more than ONNX Runtime, whose fused operators it uses, and a tokenizer.

Shapes: B texts, L tokens, D hidden, P dense dimensions, V vocabulary, C of its terms at a time.
"""

from __future__ import annotations

import numpy as np

from dupmae.graph import FUSED, MASKED, TERMS_AT_ONCE, Layers, maximum
from dupmae.onnx_format import Graph
from dupmae.stored import StoredModel
from dupmae.types import Float32
from dupmae.vocabulary import Embeddings, terms_of


def build_whole(model: StoredModel) -> Graph:
    """Return the graph of a model from token ids to both vectors.

    Inputs: `input_ids` (B, L) int64; `attention_mask` (B, L) int64, 1 and behind that 0 for
    padding.

    Outputs: `dense` (B, P), normalised if the model says so; `sparse` (B, V), the activated maxima
    over the tokens that vote, 0 for what is no term; `log_gain` (B, 1), of queries. What counts,
    query weights and cuts make of `sparse` (`term_weights.py`) is left out.

    Args:
        model: stored in float32.
    """
    graph, heads, weights = Graph(), model.heads, model.weights
    layers = Layers(graph, model.body, weights)
    is_term_V = terms_of(model).is_term_V
    embeddings = Embeddings.of(weights)
    words_VD = graph.table(embeddings.words_VD)
    tokens_BL = graph.input("input_ids", "int64", ["B", "L"])
    mask_BL = graph.input("attention_mask", "int64", ["B", "L"])
    lengths_B = graph.add("ReduceSum", [mask_BL, _places(graph, 1)], {"keepdims": 0})
    padding_BL1 = graph.look_up(graph.weight(np.array([[MASKED], [0]])), mask_BL)
    padding_B1L = None
    if heads.cls_attention:
        padding_B1L = graph.add("Transpose", [padding_BL1], {"perm": [0, 2, 1]})
    embedded_BLD = _embed(graph, words_VD, embeddings.places_LD, tokens_BL)
    cls_BD, states_BLD = layers.read(embedded_BLD, graph.cast(lengths_B, "int32"), padding_B1L)
    dense_BP = layers.product(cls_BD, "cls_projection")
    if heads.normalize:
        dense_BP = _unit(graph, dense_BP)
    graph.output("dense", dense_BP, ["B", heads.dense_dim])
    graph.output("log_gain", layers.linear(cls_BD, "query_log_gain"), ["B", 1])
    mute_V1 = graph.weight(np.where(is_term_V, 0, MASKED)[:, None])
    silent_BL1 = graph.add("Add", [graph.look_up(mute_V1, tokens_BL), padding_BL1])
    logits_BV = _pool(graph, states_BLD, silent_BL1, words_VD)
    bias_V = graph.weight(np.where(is_term_V, weights["lm.cls.predictions.bias"], MASKED))
    sparse_BV = _log1p(graph, graph.add("Relu", [graph.add("Add", [logits_BV, bias_V])]))
    if heads.activation == "log1p2_relu":
        sparse_BV = _log1p(graph, sparse_BV)
    graph.output("sparse", sparse_BV, ["B", len(is_term_V)])
    return graph


def _embed(graph: Graph, words_VD: str, places_LD: Float32, tokens_BL: str) -> str:
    """Add the sum of each token's embeddings (B, L, D)."""
    length = graph.add(
        "Slice", [graph.add("Shape", [tokens_BL]), _places(graph, 1), _places(graph, 2)]
    )
    used_LD = graph.add("Slice", [graph.weight(places_LD), _places(graph, 0), length])
    return graph.add("Add", [graph.look_up(words_VD, tokens_BL), used_LD])


def _unit(graph: Graph, vectors_BP: str) -> str:
    """Divide vectors by their ℓ2 norms; a vector of zeros stays."""
    norms_B1 = graph.add("ReduceL2", [vectors_BP], {"axes": [1], "keepdims": 1})
    least = graph.weight(np.array(1e-12))
    return graph.add("Div", [vectors_BP, graph.add("Max", [norms_B1, least])])


def _pool(graph: Graph, states_BLD: str, silent_BL1: str, words_VD: str) -> str:
    """Add the maximum logit of each term, without a (B, L, V) tensor nor the table once more."""
    size = len(graph.weights[words_VD])
    chunks = []
    for start in range(0, size, TERMS_AT_ONCE):
        bounds = _places(graph, start), _places(graph, min(start + TERMS_AT_ONCE, size))
        words_CD = graph.add("Slice", [words_VD, *bounds])
        logits_BLC = graph.add("FusedMatMul", [states_BLD, words_CD], {"transB": 1}, domain=FUSED)
        chunks.append(maximum(graph, logits_BLC, silent_BL1))
    return graph.add("Concat", chunks, {"axis": 1})


def _log1p(graph: Graph, values: str) -> str:
    return graph.add("Log", [graph.add("Add", [values, graph.weight(np.array(1.0))])])


def _places(graph: Graph, place: int) -> str:
    """Add one whole number, as operators take places and axes."""
    return graph.constant(np.array([place], dtype=np.int64))
