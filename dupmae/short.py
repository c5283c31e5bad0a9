"""Token ids → what the network says of a few short texts, such as a query: compiled, in 16 bits.

A query of a dozen tokens takes as long as the model's weights take to come from memory. Where they
are stored in float16 they are read as that, which is half the bytes, and no product is rounded
otherwise: sums are in float32, as everywhere. `short.c` is compiled when the package is installed,
if there is a C compiler for x86-64; without it, and for longer texts, for which weights come once
for many tokens, ONNX Runtime does all of it (`runtime.py`). NumPy's products are not used, for they
may run in several threads.

Shapes: B texts, T tokens of a text or of all, D hidden, H attention heads of d = D / H, N wanted
terms of a text.
"""

from __future__ import annotations

import ctypes
import sysconfig
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.heads import HeadSettings
from dupmae.readings import Network, Reading
from dupmae.stored import StoredModel, Weights
from dupmae.types import Float32, Int64
from dupmae.vocabulary import Embeddings, terms_of

MOST_TOKENS = 48
"""Of all texts together; for more, ONNX Runtime is as fast."""
_PANEL = 32
"""Columns of weights that lie together; `short.c` knows it too."""


def _load() -> ctypes.CDLL | None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    try:
        library = ctypes.CDLL(str(Path(__file__).with_name(f"_short{suffix}")))
    except OSError:  # not compiled, or for another system
        return None
    if not library.supported():
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.product.argtypes = [pointer, number, number, pointer, pointer, pointer, number]
    library.gelu.argtypes = [pointer, number]
    library.add_and_normalise.argtypes = [
        *(pointer, pointer, number, number, pointer, pointer, ctypes.c_float)
    ]
    library.attend.argtypes = [pointer, number, number, number, pointer, pointer, pointer]
    library.pool.argtypes = [pointer, number, number, pointer, pointer, number, pointer]
    for name in ("product", "gelu", "add_and_normalise", "attend", "pool"):
        getattr(library, name).restype = None
    return library


_COMPILED: Any = _load()
"""None where it cannot be used."""


def _pointer(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


class ShortNetwork:
    """A model that reads short texts itself and gives others to another network: a `Network`."""

    def __init__(
        self, model: StoredModel, heads: HeadSettings, make_other: Callable[[], Network]
    ) -> None:
        """Take a model that `reads_short` accepts.

        Args:
            model: as it is stored.
            heads: the settings.
            make_other: returns a network that reads what is not short; called when that first is
                needed, which to answer one query it never is.
        """
        weights, shape = model.weights, model.body
        self._make_other: Callable[[], Network] | None = make_other
        self._made: Network
        self._making = threading.Lock()
        self._terms = terms_of(model)
        self._embeddings = Embeddings.of(weights)
        self._by_any_term = "term_neighbours" not in weights  # of the vocabulary
        self._heads = shape.num_attention_heads
        layers = [f"lm.bert.encoder.layer.{number}" for number in range(shape.num_hidden_layers)]
        self._first_norm = _Norm(weights, "lm.bert.embeddings", shape.layer_norm_eps)
        self._layers = [_Layer(weights, layer, shape.layer_norm_eps) for layer in layers]
        transform = "lm.cls.predictions.transform"
        self._transform = _Product.of(weights, f"{transform}.dense")
        self._transform_norm = _Norm(weights, transform, shape.layer_norm_eps)
        self._activate = _gelu if shape.hidden_act == "gelu" else _relu
        self._cls_query = self._cls_reads = None
        if heads.cls_attention:
            self._cls_query = _Product.of(weights, "cls_attention.query")
            self._cls_reads = _Product.of(weights, "cls_attention.key", "cls_attention.value")
        self._speak = _Product.of(weights, "cls_projection", "query_log_gain")

    def read(self, ids: Sequence[Sequence[int]], *, expands: bool = False) -> list[Reading]:
        """Read one batch; `Network.read` says what the arguments are."""
        if sum(map(len, ids)) > MOST_TOKENS or (expands and self._by_any_term):
            return self._other().read(ids, expands=expands)
        batch = self._terms.batch(ids, expands=expands)
        ends = np.cumsum(batch.lengths_B)
        texts = [
            slice(end - length, end) for end, length in zip(ends, batch.lengths_B, strict=True)
        ]
        summed = [self._embeddings.sum(batch.tokens_T[text]) for text in texts]
        states_TD = self._body(np.concatenate(summed), texts)
        cls_BD = np.concatenate([self._cls_state(states_TD[text]) for text in texts])
        spoken = self._speak(cls_BD)
        voices_TD = self._transformed(states_TD)
        wanted_BN = batch.padded_terms()
        logits_BN = np.zeros(wanted_BN.shape, dtype=np.float32)
        for text, wanted_N, logits_N in zip(texts, wanted_BN, logits_BN, strict=True):
            if (votes_T := batch.votes_T[text]).any():
                _pool(voices_TD[text][votes_T], self._embeddings.words_VD, wanted_N, logits_N)
        return self._terms.readings(batch, spoken[:, :-1], spoken[:, -1], logits_BN)

    def _other(self) -> Network:
        with self._making:
            if self._make_other is not None:
                self._made, self._make_other = self._make_other(), None
        return self._made

    def _body(self, states_TD: Float32, texts: Sequence[slice]) -> Float32:
        """Return the last states of texts below one another; the embeddings are overwritten."""
        self._first_norm(states_TD)
        for layer in self._layers:
            asks_T3D = layer.asks(states_TD)
            read_TD = [_attend(asks_T3D[text], self._heads) for text in texts]
            layer.read_norm(states_TD, layer.read(np.concatenate(read_TD)))
            wide_TI = layer.wide(states_TD)
            self._activate(wide_TI)
            layer.norm(states_TD, layer.narrow(wide_TI))
        return states_TD

    def _transformed(self, states_TD: Float32) -> Float32:
        """Apply the MLM head up to its projection onto the vocabulary."""
        states_TD = self._transform(states_TD)
        self._activate(states_TD)
        self._transform_norm(states_TD)
        return states_TD

    def _cls_state(self, states_TD: Float32) -> Float32:
        """Return the state of [CLS] (1, D), which with its own attention reads all once more."""
        if self._cls_query is None or self._cls_reads is None:
            first_1D: Float32 = states_TD[:1]
            return first_1D
        shape = len(states_TD), 2, self._heads, -1
        asked_Hd = self._cls_query(states_TD[:1]).reshape(self._heads, -1)
        keys_THd, values_THd = self._cls_reads(states_TD).reshape(shape).swapaxes(0, 1)
        scores_TH = (keys_THd * asked_Hd).sum(axis=2) / np.sqrt(np.float32(asked_Hd.shape[1]))
        shares_TH = np.exp(scores_TH - scores_TH.max(axis=0))
        shares_TH /= shares_TH.sum(axis=0)
        read_1D: Float32 = (values_THd * shares_TH[:, :, None]).sum(axis=0).reshape(1, -1)
        return read_1D


def reads_short(model: StoredModel) -> bool:
    """Return whether a model can be read by `ShortNetwork` on this machine."""
    shape = model.body
    numbers = (values for values in model.weights.values() if values.dtype.kind == "f")
    in_16_bits = all(values.dtype == np.float16 for values in numbers)
    fits = shape.hidden_size % _PANEL == shape.intermediate_size % _PANEL == 0
    return _COMPILED is not None and in_16_bits and fits


class _Product:
    """A linear layer, or several side by side."""

    def __init__(self, weight_IO: NDArray[Any], bias_O: NDArray[Any]) -> None:
        inputs, self._outputs = weight_IO.shape
        more = -self._outputs % _PANEL  # columns of zeros
        panels = np.pad(weight_IO, ((0, 0), (0, more))).reshape(inputs, -1, _PANEL).swapaxes(0, 1)
        self._weights = np.ascontiguousarray(panels, dtype=np.float16)
        self._bias = np.pad(bias_O, (0, more)).astype(np.float32)
        self._places = _pointer(self._weights), _pointer(self._bias)

    @classmethod
    def of(cls, weights: Weights, *layers: str) -> _Product:
        """Take layers of a model; one that has no bias gets zeros."""
        weight_OI = [weights[f"{layer}.weight"] for layer in layers]
        bias_O = [
            weights.get(f"{layer}.bias", np.zeros(len(weight), np.float32))
            for layer, weight in zip(layers, weight_OI, strict=True)
        ]
        return cls(np.concatenate(weight_OI).T, np.concatenate(bias_O))

    def __call__(self, inputs_TI: Float32) -> Float32:
        """Return (T, outputs)."""
        outputs_TO = np.empty((len(inputs_TI), len(self._bias)), dtype=np.float32)
        _COMPILED.product(
            *(_pointer(inputs_TI), *inputs_TI.shape, *self._places),
            *(_pointer(outputs_TO), len(self._bias)),
        )
        return outputs_TO[:, : self._outputs]


class _Norm:
    """A layer normalisation, done in place."""

    def __init__(self, weights: Weights, name: str, epsilon: float) -> None:
        self._weight, self._bias = (
            weights[f"{name}.LayerNorm.{part}"].astype(np.float32) for part in ("weight", "bias")
        )
        self._places = _pointer(self._weight), _pointer(self._bias)
        self._epsilon = epsilon

    def __call__(self, states_TD: Float32, added_TD: Float32 | None = None) -> None:
        """Add something to states, if given, and normalise them."""
        added = None if added_TD is None else _pointer(added_TD)
        _COMPILED.add_and_normalise(
            _pointer(states_TD), added, *states_TD.shape, *self._places, self._epsilon
        )


class _Layer:
    """The products and norms of one layer."""

    def __init__(self, weights: Weights, name: str, epsilon: float) -> None:
        parts = (f"{name}.attention.self.{part}" for part in ("query", "key", "value"))
        self.asks = _Product.of(weights, *parts)
        self.read = _Product.of(weights, f"{name}.attention.output.dense")
        self.read_norm = _Norm(weights, f"{name}.attention.output", epsilon)
        self.wide = _Product.of(weights, f"{name}.intermediate.dense")
        self.narrow = _Product.of(weights, f"{name}.output.dense")
        self.norm = _Norm(weights, f"{name}.output", epsilon)


def _attend(asks_T3D: Float32, heads: int) -> Float32:
    """Let all tokens read each other: queries, keys and values (T, 3·D) to what is read (T, D)."""
    length, size = len(asks_T3D), asks_T3D.shape[1] // (3 * heads)
    read_TD = np.empty((length, heads * size), dtype=np.float32)
    keys, shares = np.empty((size, length), np.float32), np.empty(length, np.float32)
    _COMPILED.attend(
        *(_pointer(asks_T3D), length, heads, size),
        *(_pointer(keys), _pointer(shares), _pointer(read_TD)),
    )
    return read_TD


def _pool(states_TD: Float32, words_VD: NDArray[Any], wanted_N: Int64, maxima_N: Float32) -> None:
    """Write the largest product of each wanted word with any of the states."""
    _COMPILED.pool(
        *(_pointer(states_TD), *states_TD.shape, _pointer(words_VD)),
        *(_pointer(wanted_N), len(wanted_N), _pointer(maxima_N)),
    )


def _gelu(states: Float32) -> None:
    _COMPILED.gelu(_pointer(states), states.size)


def _relu(states: Float32) -> None:
    np.maximum(states, 0, out=states)
