"""Which folders can be read without torch, and what is said of the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from tiny_model import tiny_model, tiny_tokenizer

from dupmae.checkpoint import load_model, save_model
from dupmae.errors import CheckpointError, TorchNeededError
from dupmae.state import model_seal
from dupmae.stored import read_model

WEIGHT = "bert.encoder.layer.1.output.dense.weight"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "tiny", name="tiny")
    return tmp_path / "tiny"


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(path: Path, **values: np.ndarray | None) -> None:
    weights = load_file(path) | values
    save_file({name: each for name, each in weights.items() if each is not None}, path)


@pytest.mark.parametrize(
    "table",
    [np.full((200, 3), -1, np.int16), np.full((200, 3), 200, np.int32), np.ones((200, 3))],
    ids=["below 0", "above the vocabulary", "no whole numbers"],
)
@pytest.mark.parametrize("read", [read_model, load_model])
def test_neighbours_must_be_term_ids(tmp_path, table, read):
    folder = tmp_path / "tiny"
    save_model(tiny_model(k_neighbours=3), tiny_tokenizer(), folder, name="tiny")
    change_weights(folder / "heads.safetensors", term_neighbours=table)
    with pytest.raises(CheckpointError, match=r"term ids from 0 to 199, found .* as (int|float)"):
        read(folder)


def test_neighbours_in_a_type_that_numpy_lacks_are_refused_too(saved):
    save_model(tiny_model(k_neighbours=3), tiny_tokenizer(), saved, name="tiny")
    heads = saved / "heads.safetensors"
    table = torch.ones(200, 3, dtype=torch.bfloat16)
    save_tensors(load_tensors(heads) | {"term_neighbours": table}, heads)
    with pytest.raises(TorchNeededError, match=r"NumPy has no type for heads\.safetensors"):
        read_model(saved)
    with pytest.raises(CheckpointError, match="term ids from 0 to 199, found"):
        load_model(saved)


@pytest.mark.parametrize(
    "settings", [{}, {"cls_attention": True, "corpus_idf": 1.0, "k_neighbours": 3}], ids=str
)
def test_it_knows_every_weight_of_a_model_and_its_shape(tmp_path, settings):
    model = tiny_model(**settings)
    save_model(model, tiny_tokenizer(), tmp_path / "tiny", name="tiny")
    weights = read_model(tmp_path / "tiny").weights
    assert {name: each.shape for name, each in weights.items()} == {
        name: tuple(parameter.shape) for name, parameter in model.named_parameters()
    }
    assert list(weights) == sorted(weights)


@pytest.mark.parametrize("half", [False, True])
def test_the_seal_is_torchs(tmp_path, half):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["[DOC]"]})
    tokenizer.add_tokens(["zuvy"])
    model = tiny_model(cls_attention=True)
    model.lm.resize_token_embeddings(210)
    model.query_term_weight = torch.nn.Parameter(torch.ones(210))
    dtype = torch.float16 if half else torch.float32
    save_model(model, tokenizer, tmp_path / "tiny", name="tiny", dtype=dtype)
    loaded, stored = load_model(tmp_path / "tiny"), read_model(tmp_path / "tiny")
    assert stored.seal(stored.heads) == model_seal(loaded.model, loaded.tokenizer)
    assert stored.special_ids == set(loaded.tokenizer.all_special_ids)
    assert len(stored.special_ids) == 6


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: (f / "dupmae.json").unlink(), "it has no dupmae.json"),
        (lambda f: (f / "model.safetensors").unlink(), "it has no model.safetensors"),
        (lambda f: (f / "tokenizer.json").unlink(), "it has no tokenizer.json"),
        (lambda f: change_json(f / "config.json", hidden_act="silu"), "its hidden_act is 'silu'"),
        (
            lambda f: change_json(f / "config.json", hidden_size=None),
            "its config.json gives no hidden_size",
        ),
        (lambda f: change_json(f / "config.json", is_decoder=True), "it is a decoder"),
        (lambda f: change_weights(f / "model.safetensors", **{WEIGHT: None}), f"it lacks {WEIGHT}"),
        (
            lambda f: change_weights(f / "model.safetensors", **{"bert.new": np.ones(1)}),
            "it holds bert.new",
        ),
        (
            lambda f: save_tensors(
                {"bert.x": torch.ones(1, dtype=torch.bfloat16)}, f / "model.safetensors"
            ),
            "NumPy has no type for model.safetensors",
        ),
    ],
)
def test_what_only_torch_can_run_is_refused_with_the_reason_and_the_cure(saved, spoil, reason):
    spoil(saved)
    with pytest.raises(TorchNeededError) as caught:
        read_model(saved)
    message = str(caught.value)
    assert f"{saved} can only be run by torch, since {reason}" in message
    assert "; pip install 'dupmae[train]' brings it, and `export --onnx` then makes" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
        (
            lambda f: (f / "heads.safetensors").write_bytes(b"no"),
            "heads.safetensors cannot be read",
        ),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer in .* cannot be read"),
        (lambda f: change_json(f / "config.json", vocab_size=100), "knows 200 .* only 100"),
        (
            lambda f: change_json(f / "config.json", num_attention_heads=5),
            "5 heads do not divide 32",
        ),
        (
            lambda f: change_weights(f / "model.safetensors", **{WEIGHT: np.ones((2, 2))}),
            rf"{WEIGHT} should be \(32, 64\), found \(2, 2\)",
        ),
        (
            lambda f: change_weights(
                f / "model.safetensors", **{WEIGHT: np.full((32, 64), np.nan, np.float32)}
            ),
            f"{WEIGHT} holds values that are not finite",
        ),
    ],
)
def test_a_damaged_folder_is_refused_whether_or_not_there_is_torch(saved, spoil, message):
    spoil(saved)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_model(saved)
    assert not isinstance(caught.value, TorchNeededError)
