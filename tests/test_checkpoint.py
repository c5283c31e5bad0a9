"""Our own model folders: what is saved is loaded, bit for bit."""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_folders import GAIN, NO_OPTIONS, all_parameters, assert_equal_tensors, with_options
from safetensors.torch import load_file, save_file
from tiny_model import VOCABULARY, tiny_model, tiny_tokenizer
from transformers import AutoTokenizer, BertForMaskedLM

from dupmae import checkpoint
from dupmae.card import Card
from dupmae.checkpoint import load_model, save_model
from dupmae.errors import CheckpointError, UsageError
from dupmae.heads import HeadSettings


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "tiny", name="tiny-one")
    return tmp_path / "tiny"


def test_a_saved_model_loads_bit_for_bit_and_lacks_nothing(saved, caplog):
    loaded = load_model(saved)
    assert_equal_tensors(all_parameters(loaded.model), all_parameters(tiny_model()))
    assert loaded.model.heads == tiny_model().heads
    assert (loaded.name, loaded.missing, caplog.text) == ("tiny-one", (), "")
    assert not loaded.model.training
    assert loaded.tokenizer.get_vocab() == tiny_tokenizer().get_vocab()


def test_optional_heads_are_saved_and_loaded_bit_for_bit(tmp_path, caplog):
    save_model(with_options(), tiny_tokenizer(), tmp_path / "m", name="options")
    loaded = load_model(tmp_path / "m")
    assert_equal_tensors(all_parameters(loaded.model), all_parameters(with_options()))
    assert (loaded.missing, caplog.text) == ((), "")
    assert loaded.model.training_idf is not None
    assert not loaded.model.training_idf.requires_grad


def test_a_folder_from_before_the_optional_heads_lacks_them_and_says_so(tmp_path, caplog):
    save_model(with_options(), tiny_tokenizer(), tmp_path / "m", name="old")
    heads = tmp_path / "m" / "heads.safetensors"
    tensors = load_file(heads)
    options = ("cls_attention", "training_idf", "term_neighbours")
    old = {n: t for n, t in tensors.items() if not n.startswith(options)}
    assert old.keys() == {"cls_projection.weight", "query_term_weight", *GAIN}
    save_file(old, heads)
    with caplog.at_level(logging.WARNING, "dupmae.checkpoint"):
        loaded = load_model(tmp_path / "m")
    assert loaded.missing == NO_OPTIONS
    assert caplog.messages == [f"{tmp_path / 'm'} lacks: {'; '.join(NO_OPTIONS)}"]
    model = loaded.model
    assert model.training_idf is not None
    assert (model.training_idf == 1).all()
    assert model.term_neighbours is not None
    own = torch.arange(len(VOCABULARY)).unsqueeze(1)
    assert (model.term_neighbours == own).all()
    states, mask = torch.randn(2, 5, 32), torch.ones(2, 5)
    torch.testing.assert_close(model.cls_state(states, mask), states.mean(dim=1))


def test_optional_heads_can_be_asked_of_a_folder_without_them(saved):
    heads = with_options().heads
    assert load_model(saved, heads=heads).missing == NO_OPTIONS
    only_idf = replace(heads, cls_attention=False, k_neighbours=0)
    assert load_model(saved, heads=only_idf).missing == NO_OPTIONS[1:2]


def test_the_decoder_of_a_loaded_model_is_its_word_embeddings(saved):
    model = load_model(saved).model
    assert model.lm.get_output_embeddings().weight is model.word_embeddings.weight


def test_hugging_face_opens_a_saved_folder_without_a_key_to_spare(saved):
    model, info = BertForMaskedLM.from_pretrained(saved, output_loading_info=True)
    assert not any(info.values()), info
    expected = tiny_model().lm
    ids = torch.tensor([[2, 5, 9, 3]])
    torch.testing.assert_close(model.eval()(ids).logits, expected(ids).logits, rtol=0, atol=1e-6)
    assert AutoTokenizer.from_pretrained(saved)("ba be").input_ids == [2, 5, 6, 3]


def test_neighbours_stay_whole_numbers_in_half_precision(tmp_path):
    model = with_options()
    save_model(model, tiny_tokenizer(), tmp_path / "h", name="h", dtype=torch.float16)
    stored = load_file(tmp_path / "h" / "heads.safetensors")["term_neighbours"]
    assert stored.dtype == torch.int16
    assert torch.equal(stored, model.term_neighbours)
    assert torch.equal(load_model(tmp_path / "h").model.term_neighbours, stored)


def test_half_precision_is_stored_in_16_bits_and_loaded_in_32(tmp_path):
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "h", name="h", dtype=torch.float16)
    for file in ("model.safetensors", "heads.safetensors"):
        assert {t.dtype for t in load_file(tmp_path / "h" / file).values()} == {torch.float16}
    loaded = all_parameters(load_model(tmp_path / "h").model)
    assert_equal_tensors(loaded, all_parameters(tiny_model().half().float()))
    assert BertForMaskedLM.from_pretrained(tmp_path / "h").dtype == torch.float32


def test_other_precisions_are_refused(tmp_path):
    with pytest.raises(UsageError, match="float32 or float16, not"):
        save_model(tiny_model(), tiny_tokenizer(), tmp_path / "b", name="b", dtype=torch.bfloat16)
    assert not list(tmp_path.iterdir())


def test_saving_leaves_the_model_as_it_was(saved):
    model = tiny_model().train()
    before = {name: tensor.clone() for name, tensor in all_parameters(model).items()}
    save_model(model, tiny_tokenizer(), saved, name="again", dtype=torch.float16)
    assert_equal_tensors(all_parameters(model), before)
    assert model.training


def test_saving_replaces_a_model_and_leaves_nothing_beside_it(saved):
    save_model(tiny_model(k_query=3), tiny_tokenizer(), saved, name="second")
    assert (load_model(saved).name, load_model(saved).model.heads.k_query) == ("second", 3)
    assert [path.name for path in saved.parent.iterdir()] == ["tiny"]


def test_a_save_that_fails_leaves_the_old_model(saved, monkeypatch):
    monkeypatch.setattr(checkpoint, "render_card", None)
    with pytest.raises(TypeError):
        save_model(tiny_model(), tiny_tokenizer(), saved, name="second")
    assert load_model(saved).name == "tiny-one"
    assert [path.name for path in saved.parent.iterdir()] == ["tiny"]


def test_saving_never_deletes_what_is_no_model(saved):
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"holds notes\.txt, which is no part of a model"):
        save_model(tiny_model(), tiny_tokenizer(), saved, name="second")
    with pytest.raises(CheckpointError, match="is a file"):
        save_model(tiny_model(), tiny_tokenizer(), saved / "notes.txt", name="second")
    assert (saved / "notes.txt").read_text() == "mine"


def test_a_saved_folder_names_no_place_of_the_machine_it_came_from(saved, tmp_path):
    again = load_model(saved)
    save_model(again.model, again.tokenizer, tmp_path / "copy", name="copy")
    for path in (tmp_path / "copy").glob("*.json"):
        assert str(tmp_path) not in path.read_text()
        assert "local" not in path.read_text()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_a_saved_folder_can_be_read_by_others(saved):
    assert stat.S_IMODE(saved.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in saved.iterdir()} == {0o644}


def test_the_card_says_what_its_maker_said(tmp_path):
    card = Card(
        description="A small one.",
        base_model="org/base",
        datasets=("a", 'b "c"'),
        sections={"Measured": "| nDCG@10 |"},
    )
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "m", name="tiny-one", card=card)
    text = (tmp_path / "m" / "README.md").read_text()
    front = text.split("---\n")[1]
    assert front.splitlines() == [
        'library_name: "dupmae"',
        'pipeline_tag: "feature-extraction"',
        'license: "apache-2.0"',
        'base_model: "org/base"',
        'datasets: ["a", "b \\"c\\""]',
        'language: ["en"]',
    ]
    for part in ("# tiny-one", "A small one.", "| `k_document` | 30 |", "## Measured\n\n| nDCG"):
        assert part in text


def test_other_heads_can_be_asked_for(saved):
    heads = HeadSettings(dense_dim=16, max_document_length=9, max_query_length=9)
    assert load_model(saved, heads=heads).model.heads == heads
    with pytest.raises(CheckpointError, match=r"cls_projection.weight should be \(8, 32\), found"):
        load_model(
            saved, heads=HeadSettings(dense_dim=8, max_document_length=9, max_query_length=9)
        )
    with pytest.raises(CheckpointError, match="has 64 positions, but a text may have 256 tokens"):
        load_model(saved, heads=HeadSettings(dense_dim=16))
