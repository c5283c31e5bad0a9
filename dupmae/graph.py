"""The network as ONNX graphs: a BERT body with [CLS]'s heads, and the maximum over tokens.

They are `model.py` in ONNX Runtime's fused operators, made anew of a stored model whenever that is
loaded. Left out: the tokens' embeddings, which come in (`runtime.py`), and the term weights, which
are made of what goes out (`encoder.py`). A graph for others is whole (`whole_graph.py`).

Shapes: B texts, L tokens, D hidden, H attention heads of d = D / H, P dense dimensions, N terms of
a text, V vocabulary, C of its terms at a time, T = B · L.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.heads import HeadSettings
from dupmae.onnx_format import Graph
from dupmae.stored import BodyShape, Weights
from dupmae.types import Float64

FUSED = "com.microsoft"
MASKED = -1e9
"""Added to what no softmax and no maximum shall pick."""
TERMS_AT_ONCE = 1024
"""C, where all terms are wanted: a batch of 1,024 tokens has 4 MiB of logits at a time."""


def build_reader(body: BodyShape, heads: HeadSettings, weights: Weights) -> Graph:
    """Return the graph of a model up to the vocabulary.

    Inputs: `embedded` (B, L, D), the sum of the three embeddings; `lengths` (B,) int32, how many
    tokens are none of padding. With [CLS]'s attention `padding` (B, 1, L), `MASKED` for padding.

    Outputs: `dense` (B, P), not normalised; `log_gain` (B, 1), without its bias; `states`
    (B, L, D), transformed for the projection onto the vocabulary.

    Args:
        body: the shape of the body.
        heads: its dimensions and whether there is [CLS]'s attention matter here.
        weights: all of the model's.
    """
    graph = Graph()
    layers = Layers(graph, body, weights)
    embedded_BLD = graph.input("embedded", "float32", ["B", "L", body.hidden_size])
    lengths_B = graph.input("lengths", "int32", ["B"])
    padding_B1L = None
    if heads.cls_attention:
        padding_B1L = graph.input("padding", "float32", ["B", 1, "L"])
    cls_BD, states_BLD = layers.read(embedded_BLD, lengths_B, padding_B1L)
    graph.output("dense", layers.product(cls_BD, "cls_projection"))
    graph.output("log_gain", layers.product(cls_BD, "query_log_gain"))
    graph.output("states", states_BLD)
    return graph


def build_pool(head_VD: NDArray[Any], *, given: bool) -> Graph:
    """Return the graph from there to the maxima over tokens.

    Inputs: `states` (B, L, D); `silent` (B, L, 1), `MASKED` for tokens that do not vote and else
    0; if terms are given `wanted` (B, N) int64, which ones of each text.

    Outputs: `logits`, the maxima over the votes without their biases, of the wanted terms (B, N),
    or of the vocabulary (B, V).

    Args:
        head_VD: the vocabulary's word embeddings, float16 or float32.
        given: whether terms are given, or all are wanted.
    """
    graph = Graph()
    states_BLD = graph.input("states", "float32", ["B", "L", head_VD.shape[1]])
    silent_BL1 = graph.input("silent", "float32", ["B", "L", 1])
    if given:
        wanted = graph.input("wanted", "int64", ["B", "N"])
        wanted_BND = graph.look_up(graph.table(head_VD), wanted)
        logits_BLN = graph.add("FusedMatMul", [states_BLD, wanted_BND], {"transB": 1}, domain=FUSED)
        graph.output("logits", maximum(graph, logits_BLN, silent_BL1))
    else:
        graph.output("logits", _pool_vocabulary(graph, states_BLD, silent_BL1, head_VD))
    return graph


def maximum(graph: Graph, logits_BLN: str, silent_BL1: str) -> str:
    """Add the maximum over the tokens that vote."""
    voting_BLN = graph.add("Add", [logits_BLN, silent_BL1])
    return graph.add("ReduceMax", [voting_BLN], {"axes": [1], "keepdims": 0})


def _pool_vocabulary(graph: Graph, states_BLD: str, silent_BL1: str, head_VD: NDArray[Any]) -> str:
    """Add the maximum logit of each term of the vocabulary, without a (B, L, V) tensor."""
    chunks = []
    for start in range(0, len(head_VD), TERMS_AT_ONCE):
        head_DC = graph.weight(head_VD[start : start + TERMS_AT_ONCE].T)
        chunks.append(maximum(graph, graph.add("MatMul", [states_BLD, head_DC]), silent_BL1))
    return graph.add("Concat", chunks, {"axis": 1})


class Layers:
    """Adds the parts of a network to a graph; each returns the name of its result."""

    def __init__(self, graph: Graph, shape: BodyShape, weights: Weights) -> None:
        self.graph = graph
        self.shape = shape
        self.weights = weights

    def weight(self, name: str) -> str:
        """Add one of the model's weights as it is."""
        return self.graph.weight(self.weights[name])

    def product(self, inputs: str, layer: str) -> str:
        """Apply a linear layer without its bias."""
        weight_io = self.graph.weight(self.weights[f"{layer}.weight"].T)
        return self.graph.add("MatMul", [inputs, weight_io])

    def linear(self, inputs: str, layer: str) -> str:
        """Apply a linear layer."""
        return self.graph.add("Add", [self.product(inputs, layer), self.weight(f"{layer}.bias")])

    def activated(self, inputs: str, layer: str, surplus: str = "") -> str:
        """Apply a linear layer to what has a surplus, and the body's activation."""
        product, bias = self.product(inputs, layer), self.bias(layer, surplus=surplus)
        if self.shape.hidden_act == "gelu":
            return self.graph.add("BiasGelu", [product, bias], domain=FUSED)
        return self.graph.add("Relu", [self.graph.add("Add", [product, bias])])

    def bias(self, *layers: str, surplus: str) -> str:
        """Add the biases of linear layers side by side, less what the inputs' surplus adds."""
        added_D = self.surplus(surplus)
        biases = [
            self.weights[f"{layer}.bias"] - self.weights[f"{layer}.weight"] @ added_D
            for layer in layers
        ]
        return self.graph.weight(np.concatenate(biases))

    def norm(self, name: str, states: str, surplus: str = "") -> str:
        """Add a layer normalisation, and a surplus to what it gives."""
        bias = self.graph.weight(self.weights[f"{name}.bias"] + self.surplus(surplus))
        inputs = [states, self.weight(f"{name}.weight"), bias]
        attributes = {"axis": -1, "epsilon": self.shape.layer_norm_eps}
        return self.graph.add("LayerNormalization", inputs, attributes)

    def surplus(self, sublayer: str) -> Float64:
        """Return what states have too much: the last bias of the sublayer they go to, if any."""
        if not sublayer:
            return np.zeros(self.shape.hidden_size)
        return self.weights[f"{sublayer}.dense.bias"].astype(np.float64)

    def residual(self, inner_TD: str, before_TD: str, sublayer: str, surplus: str) -> str:
        """Add a sublayer's last product to what was before it, and normalise.

        `Gemm` adds a matrix in no time, but no bias beside it: what was before has that already, as
        its surplus. (`SkipLayerNormalization`, which adds both, took .5 of the 8 ms of a query.)
        """
        weight_io = self.graph.weight(self.weights[f"{sublayer}.dense.weight"].T)
        sums_TD = self.graph.add("Gemm", [inner_TD, weight_io, before_TD])
        return self.norm(f"{sublayer}.LayerNorm", sums_TD, surplus)

    def read(self, embedded_BLD: str, lengths_B: str, padding_B1L: str | None) -> tuple[str, str]:
        """Add all up to the heads: the state of [CLS] (B, D), and all states (B, L, D) transformed.

        Padding is for [CLS]'s attention; None where a model has none.
        """
        states_BLD = self.body(embedded_BLD, lengths_B)
        cls_BD = self.first(states_BLD)
        if padding_B1L is not None:
            cls_BD = self.cls_attention(cls_BD, states_BLD, padding_B1L)
        return cls_BD, self.transform(states_BLD)

    def body(self, embedded_BLD: str, lengths_B: str) -> str:
        """Normalise the embeddings, and add all layers."""
        hidden, shape_BLD = self.shape.hidden_size, self.graph.add("Shape", [embedded_BLD])
        layers = [f"lm.bert.encoder.layer.{n}" for n in range(self.shape.num_hidden_layers)]
        readers = [*(f"{layer}.attention.output" for layer in layers), ""]
        states_TD = self.reshape(embedded_BLD, hidden)
        states_TD = self.norm("lm.bert.embeddings.LayerNorm", states_TD, readers[0])
        for layer, (reader, next_reader) in zip(layers, pairwise(readers), strict=True):
            states_BLD = self.graph.add("Reshape", [states_TD, shape_BLD])
            read_TD = self.reshape(self.attention(states_BLD, lengths_B, layer, reader), hidden)
            writer = f"{layer}.output"
            states_TD = self.residual(read_TD, states_TD, reader, writer)
            wide_TD = self.activated(states_TD, f"{layer}.intermediate.dense", writer)
            states_TD = self.residual(wide_TD, states_TD, writer, next_reader)
        return self.graph.add("Reshape", [states_TD, shape_BLD])

    def attention(self, states_BLD: str, lengths_B: str, layer: str, surplus: str) -> str:
        """Let all tokens of a text read each other."""
        parts = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self.weights[f"{part}.weight"].T for part in parts], axis=1)
        bias = self.bias(*parts, surplus=surplus)
        inputs = [states_BLD, self.graph.weight(weight), bias, lengths_B]
        heads = {"num_heads": self.shape.num_attention_heads}
        return self.graph.add("Attention", inputs, heads, domain=FUSED)

    def first(self, states: str) -> str:
        """Pick the state of [CLS]."""
        place = self.graph.constant(np.array(0, dtype=np.int64))
        return self.graph.add("Gather", [states, place], {"axis": 1})

    def cls_attention(self, first_BD: str, states: str, padding: str) -> str:
        """Let [CLS] read all states once more.

        ⟨q, W_k·x⟩ = ⟨W_kᵀ·q, x⟩ and Σ a·(W_v·x) = W_v·Σ a·x: so neither product is made for every
        token, as `cls_attention.py` does.
        """
        hidden, heads = self.shape.hidden_size, self.shape.num_attention_heads
        each = hidden // heads
        key_HdD = self.weights["cls_attention.key.weight"].reshape(heads, each, hidden)
        value_HdD = self.weights["cls_attention.value.weight"].reshape(heads, each, hidden)
        asked_BH1d = self.reshape(self.linear(first_BD, "cls_attention.query"), heads, 1, each)
        asked_BH1D = self.graph.add("MatMul", [asked_BH1d, self.graph.weight(key_HdD)])
        asked_BHD = self.reshape(asked_BH1D, heads, hidden)
        attributes = {"transB": 1, "alpha": 1 / math.sqrt(each)}
        scores_BHL = self.graph.add("FusedMatMul", [asked_BHD, states], attributes, domain=FUSED)
        shares_BHL = self.graph.add("Softmax", [self.graph.add("Add", [scores_BHL, padding])])
        read_BH1D = self.reshape(self.graph.add("MatMul", [shares_BHL, states]), heads, 1, hidden)
        value_HDd = self.graph.weight(value_HdD.transpose(0, 2, 1))
        read_BD = self.reshape(self.graph.add("MatMul", [read_BH1D, value_HDd]), hidden)
        return self.graph.add("Add", [read_BD, self.weight("cls_attention.value.bias")])

    def reshape(self, states: str, *shape: int) -> str:
        """Give each text's part of the states another shape."""
        target = self.graph.constant(np.array([-1, *shape], dtype=np.int64))
        return self.graph.add("Reshape", [states, target])

    def transform(self, states: str) -> str:
        """Add the MLM head up to its projection onto the vocabulary."""
        name = "lm.cls.predictions.transform"
        return self.norm(f"{name}.LayerNorm", self.activated(states, f"{name}.dense"))
