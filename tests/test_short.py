"""What is compiled for short texts means what torch and ONNX Runtime mean."""

from __future__ import annotations

import ctypes
import platform
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import WORDS, tiny_model, tiny_tokenizer

from dupmae import short
from dupmae.checkpoint import save_model
from dupmae.encoder import Encoder
from dupmae.model import DupMAE
from dupmae.readings import Reading
from dupmae.runtime import GraphNetwork
from dupmae.short import MOST_TOKENS, ShortNetwork, reads_short
from dupmae.stored import StoredModel, read_model
from dupmae.torch_encoder import TorchEncoder
from dupmae.types import Float32

compiled = pytest.mark.skipif(short._COMPILED is None, reason="short.c is not compiled here")
TEXTS = ["ba be bade fifo", "", "zuzo ga [MASK] 99", " ".join(WORDS[:9]), "ba ba ba"]


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., StoredModel]:
    def store(model: DupMAE | None = None, **settings: object) -> StoredModel:
        made = model or tiny_model(**settings)
        save_model(made, tiny_tokenizer(), tmp_path / "half", name="tiny", dtype=torch.float16)
        return read_model(tmp_path / "half")

    return store


def token_ids(texts: list[str]) -> list[list[int]]:
    return [tiny_tokenizer()(text)["input_ids"] for text in texts]


def never() -> GraphNetwork:
    raise AssertionError("a short text needs no other network")


def assert_alike(found: list[Reading], expected: list[Reading]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.terms, other.terms)
        np.testing.assert_array_equal(one.counts, other.counts)
        assert one.length == other.length
        np.testing.assert_allclose(one.logits, other.logits, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(one.dense, other.dense, rtol=1e-6, atol=1e-5)
        assert one.log_gain == pytest.approx(other.log_gain, abs=1e-5)


def test_it_is_compiled_where_it_can_be() -> None:
    can = platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"
    flags = Path("/proc/cpuinfo").read_text() if can else ""
    if shutil.which("gcc") is None or " avx2 " not in flags:
        pytest.skip("there is no gcc, or no processor with AVX2")
    assert short._COMPILED is not None


@compiled
@pytest.mark.parametrize(
    "settings",
    [
        {"expansion": 0.0},
        {"expansion": 0.0, "cls_attention": True},
        {"expansion": 0.5, "k_neighbours": 3, "cls_attention": True, "dense_dim": 24},
    ],
    ids=str,
)
def test_it_reads_what_the_graphs_read(
    stored: Callable[..., StoredModel], settings: dict[str, Any]
) -> None:
    model = stored(**settings)
    assert reads_short(model)
    ids, expands = token_ids(TEXTS), settings["expansion"] > 0
    assert sum(map(len, ids)) <= MOST_TOKENS
    found = ShortNetwork(model, model.heads, never).read(ids, expands=expands)
    expected = GraphNetwork(model, model.heads).read(ids, expands=expands)
    assert_alike(found, expected)
    alone = [ShortNetwork(model, model.heads, never).read([text], expands=expands) for text in ids]
    assert_alike([each for (each,) in alone], expected)


@compiled
def test_another_activation_means_what_torch_means(stored: Callable[..., StoredModel]) -> None:
    config = tiny_model().lm.config
    config.hidden_act = "relu"
    relu = DupMAE.from_config(config, tiny_model(expansion=0.0).heads)
    relu.load_state_dict(tiny_model().half().float().state_dict())
    model = stored(relu)
    ids = token_ids(TEXTS)
    found = ShortNetwork(model, model.heads, never).read(ids)
    assert_alike(found, GraphNetwork(model, model.heads).read(ids))


@compiled
def test_the_encoder_uses_it_for_queries_and_not_for_long_texts(tmp_path: Path) -> None:
    model = tiny_model(expansion=0.0)
    TorchEncoder(model, tiny_tokenizer(), "tiny").save(tmp_path / "half", half_precision=True)
    encoder = Encoder.load(tmp_path / "half", threads=1)
    assert "float32, short texts compiled, on " in encoder.runtime
    network = encoder._reader.network
    assert isinstance(network, ShortNetwork)
    for texts in (TEXTS, [" ".join(WORDS[:30])], TEXTS * 9):
        found, expected = (
            each.encode_queries(texts) for each in (encoder, TorchEncoder.load(tmp_path / "half"))
        )
        np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)
        np.testing.assert_array_equal(found.sparse.terms, expected.sparse.terms)
        np.testing.assert_allclose(found.sparse.weights, expected.sparse.weights, atol=1e-4)


@compiled
def test_the_other_network_is_made_once_when_it_is_needed(
    stored: Callable[..., StoredModel],
) -> None:
    model, made = stored(expansion=0.5), []

    def make() -> GraphNetwork:
        made.append(GraphNetwork(model, model.heads))
        return made[-1]

    network = ShortNetwork(model, model.heads, make)
    few, many = token_ids(["ba be"]), token_ids([" ".join(WORDS[:30])] * 2)
    network.read(few)
    assert not made
    with ThreadPoolExecutor(4) as pool:
        readings = list(pool.map(network.read, [many] * 8))
    assert len(made) == 1
    assert_alike(readings[0], made[0].read(many))
    # Any term of the vocabulary may expand this one.
    assert_alike(network.read(few, expands=True), made[0].read(few, expands=True))


def test_without_the_compiled_part_or_float16_the_graphs_do_all(
    stored: Callable[..., StoredModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "whole", name="tiny")
    whole = read_model(tmp_path / "whole")
    assert not reads_short(whole)
    half = stored()
    for name, values in half.weights.items():
        mixed = dict(half.weights) | {name: values.astype(np.float32)}
        assert not reads_short(replace(half, weights=mixed)), name
    assert isinstance(Encoder.load(tmp_path / "whole")._reader.network, GraphNetwork)
    monkeypatch.setattr(short, "_COMPILED", None)
    encoder = Encoder.load(tmp_path / "half")
    assert isinstance(encoder._reader.network, GraphNetwork)
    assert "compiled" not in encoder.runtime


@compiled
def test_a_body_of_odd_sizes_is_left_to_the_graphs(stored: Callable[..., StoredModel]) -> None:
    config = tiny_model().lm.config
    config.intermediate_size = 72
    assert not reads_short(stored(DupMAE.from_config(config, tiny_model().heads)))


@compiled
@pytest.mark.parametrize("product", ["product", "product8", "product16"])
@pytest.mark.parametrize("rows", [*range(1, 31), 48])
def test_products_are_right_for_any_number_of_rows(product: str, rows: int) -> None:
    if product == "product16" and short._COMPILED.supported() < 2:
        pytest.skip("this processor has no AVX-512")
    drawn = np.random.default_rng(rows)
    inputs, weight = drawn.normal(size=(rows, 40)), drawn.normal(size=(40, 96))
    weight, bias = weight.astype(np.float16), drawn.normal(size=96).astype(np.float32)
    layer = short._Product(weight, bias)
    given = inputs.astype(np.float32)
    found = np.full((rows, 96), np.nan, dtype=np.float32)
    call = getattr(short._COMPILED, product)
    call.argtypes, call.restype = short._COMPILED.product.argtypes, None
    call(*map(short._pointer, (given,)), rows, 40, *layer._places, short._pointer(found), 96)
    expected = given.astype(np.float64) @ weight.astype(np.float64) + bias
    np.testing.assert_allclose(found, expected, atol=2e-5)


@compiled
@pytest.mark.parametrize("pool", ["pool", "pool8", "pool16"])
@pytest.mark.parametrize("rows", [1, 4, 11])
def test_maxima_are_over_all_rows_and_no_others(pool: str, rows: int) -> None:
    if pool == "pool16" and short._COMPILED.supported() < 2:
        pytest.skip("this processor has no AVX-512")
    drawn = np.random.default_rng(rows)
    states = drawn.normal(-5, 1, size=(rows, 48)).astype(np.float32)
    words = np.abs(drawn.normal(size=(9, 48))).astype(np.float16)  # so that no product is above 0
    wanted, maxima = np.array([8, 0, 3, 3]), np.full(4, np.nan, dtype=np.float32)
    call = getattr(short._COMPILED, pool)
    call.argtypes, call.restype = short._COMPILED.pool.argtypes, None
    places = map(short._pointer, (states, words, wanted, maxima))
    (at_states, at_words, at_wanted, at_maxima) = places
    call(at_states, rows, 48, at_words, at_wanted, 4, at_maxima)
    expected = (states.astype(np.float64) @ words[wanted].astype(np.float64).T).max(axis=0)
    assert expected.max() < 0
    np.testing.assert_allclose(maxima, expected, rtol=1e-6)


@compiled
def test_gelu_is_that_of_torch() -> None:
    values = np.concatenate([np.linspace(-12, 12, 24_001), [-1e4, 1e4, 0]]).astype(np.float32)
    found = values.copy()
    short._gelu(found)
    expected = torch.nn.functional.gelu(torch.from_numpy(values).double()).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)


@compiled
@pytest.mark.parametrize(("rows", "size"), [(1, 32), (7, 384), (40, 768)])
def test_norms_are_those_of_torch(rows: int, size: int) -> None:
    drawn = np.random.default_rng(size)
    states, added = (drawn.normal(5, 2, (rows, size)).astype(np.float32) for _ in range(2))
    weights = {
        f"n.LayerNorm.{part}": drawn.normal(size=size).astype(np.float16)
        for part in ("weight", "bias")
    }
    norm = short._Norm(weights, "n", 1e-6)
    for more in (None, added):
        found = states.copy()
        norm(found, more)
        summed = torch.from_numpy(states if more is None else states + more).double()
        parts = [torch.from_numpy(each).double() for each in weights.values()]
        expected = torch.nn.functional.layer_norm(summed, (size,), *parts, 1e-6)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@compiled
@pytest.mark.parametrize(("rows", "heads", "size"), [(1, 4, 8), (13, 12, 32), (48, 2, 64)])
def test_attention_is_that_of_torch(rows: int, heads: int, size: int) -> None:
    drawn = np.random.default_rng(rows)
    asks = drawn.normal(size=(rows, 3 * heads * size)).astype(np.float32)
    found = short._attend(asks, heads)
    parts = torch.from_numpy(asks).double().view(rows, 3, heads, size).permute(1, 2, 0, 3)
    expected = torch.nn.functional.scaled_dot_product_attention(*parts)
    np.testing.assert_allclose(found, _flat(expected), atol=1e-5)


def _flat(read_HTd: torch.Tensor) -> Float32:
    return read_HTd.transpose(0, 1).flatten(1).numpy()


@compiled
def test_pointers_are_what_ctypes_says() -> None:
    array = np.zeros(3, dtype=np.float32)
    assert short._pointer(array) == array.ctypes.data_as(ctypes.c_void_p).value
