"""Folders that others publish: what they give a model, and what they lack."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_folders import (
    BODY,
    NO_HEADS,
    NO_MLM_HEAD,
    Tensors,
    all_parameters,
    assert_equal_tensors,
    body,
    published,
    without,
    write_folder,
)
from tiny_model import VOCABULARY, tiny_model
from torch import Tensor

from dupmae.checkpoint import load_model
from dupmae.heads import HeadSettings


def test_a_published_masked_language_model_lacks_only_the_retrieval_heads(tmp_path, caplog):
    folder = write_folder(tmp_path / "RetroMAE", published(), file="pytorch_model.bin")
    with caplog.at_level(logging.WARNING, "dupmae.checkpoint"):
        loaded = load_model(folder)
    assert loaded.missing == NO_HEADS
    assert caplog.messages == [f"{folder} lacks: {'; '.join(NO_HEADS)}"]
    assert loaded.name == "RetroMAE"
    assert_equal_tensors(dict(loaded.model.lm.state_dict()), dict(tiny_model().lm.state_dict()))
    assert torch.equal(loaded.model.cls_projection.weight, torch.eye(32))
    assert loaded.model.heads == HeadSettings(
        dense_dim=32, max_document_length=64, max_query_length=64
    )
    assert loaded.tokenizer("Ba bebi").input_ids == [2, 5, 6, VOCABULARY.index("##bi"), 3]


def wrapped(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def old_names(tensors: Tensors) -> Tensors:
    def old(name: str) -> str:
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        )

    return {old(name): tensor for name, tensor in tensors.items()}


def with_extras(tensors: Tensors) -> Tensors:
    return tensors | {
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "bert.pooler.dense.weight": torch.ones(32, 32),
        "bert.pooler.dense.bias": torch.ones(32),
        "c_head.attention.self.query.weight": torch.ones(32, 32),
        "cls.seq_relationship.weight": torch.ones(2, 32),
        "classifier.weight": torch.ones(2, 32),
    }


LAYOUTS = [
    wrapped("lm."),
    wrapped("module.lm."),
    old_names,
    with_extras,
    without("decoder.weight"),
    without("decoder."),
    without("cls.predictions.bias"),  # decoder.bias is the same vector
    wrapped(""),
]


@pytest.mark.parametrize(
    ("change", "file"),
    [
        *((change, "model.safetensors") for change in LAYOUTS),
        (LAYOUTS[0], "pytorch_model.bin"),
        *(pytest.param(c, "pytorch_model.bin", marks=pytest.mark.slow) for c in LAYOUTS[1:]),
    ],
)
def test_layouts_that_differ_in_names_and_extras_give_the_same_model(tmp_path, change, file):
    folder = write_folder(tmp_path / "m", change(published()), file=file)
    loaded = load_model(folder)
    assert loaded.missing == NO_HEADS
    assert_equal_tensors(dict(loaded.model.lm.state_dict()), dict(tiny_model().lm.state_dict()))


def bare(tensors: Tensors) -> Tensors:
    """Return what sentence-transformers saves of a bare BertModel."""
    inner = {
        name.removeprefix(BODY): tensor for name, tensor in tensors.items() if name.startswith(BODY)
    }
    return inner | {
        "embeddings.position_ids": torch.arange(64)[None],
        "pooler.dense.weight": torch.ones(32, 32),
    }


def test_a_bare_body_of_a_sentence_encoder_lacks_the_whole_head(tmp_path):
    folder = write_folder(tmp_path / "st", bare(published()), architectures=["BertModel"])
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling").mkdir()
    loaded = load_model(folder)
    assert loaded.missing == NO_MLM_HEAD + NO_HEADS
    assert_equal_tensors(body(loaded.model), body(tiny_model()))
    assert not loaded.model.lm.cls.predictions.bias.any()


def test_what_a_checkpoint_lacks_is_the_same_at_every_load_and_spends_no_randomness(tmp_path):
    folder = write_folder(tmp_path / "st", bare(published()))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = load_model(folder)
    assert torch.equal(torch.get_rng_state(), before)
    assert_equal_tensors(all_parameters(one.model), all_parameters(load_model(folder).model))


def test_a_narrower_untrained_projection_is_random_and_said_to_be(tmp_path):
    heads = HeadSettings(dense_dim=8, max_document_length=64, max_query_length=64)
    loaded = load_model(write_folder(tmp_path / "m", published()), heads=heads)
    assert loaded.missing[0] == "W_cls (random until trained)"
    assert loaded.model.cls_projection.weight.shape == (8, 32)


def test_half_precision_weights_of_others_are_loaded_in_32_bits(tmp_path):
    tensors = {name: tensor.half() for name, tensor in published().items()}
    model = load_model(write_folder(tmp_path / "m", tensors)).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_safetensors_are_read_rather_than_a_pickle(tmp_path):
    folder = write_folder(tmp_path / "m", published())
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    assert load_model(folder).missing == NO_HEADS


def write_pooler(folder: Path, **changes: Tensor) -> Tensor:
    weight = torch.arange(12 * 32, dtype=torch.float32).view(12, 32)
    pooler = {f"linear_{side}.weight": weight for side in "qp"}
    pooler |= {f"linear_{side}.bias": torch.zeros(12) for side in "qp"}
    torch.save(pooler | {n.replace("__", "."): t for n, t in changes.items()}, folder / "pooler.pt")
    (folder / "pooler_config.json").write_text('{"input_dim": 32, "output_dim": 12, "tied": true}')
    return weight


def test_a_published_pooler_becomes_the_projection(tmp_path):
    folder = write_folder(tmp_path / "m", published())
    weight = write_pooler(folder)
    loaded = load_model(folder)
    assert torch.equal(loaded.model.cls_projection.weight, weight)
    assert loaded.model.heads.dense_dim == 12
    assert loaded.missing == NO_HEADS[1:]


def test_what_a_projection_cannot_say_of_a_pooler_is_named(tmp_path):
    folder = write_folder(tmp_path / "m", published())
    write_pooler(folder, linear_q__weight=torch.ones(12, 32), linear_p__bias=torch.ones(12))
    assert load_model(folder).missing[-2:] == (
        "the pooler's own query projection (the document's is used)",
        "the pooler's bias (W_cls has none)",
    )
