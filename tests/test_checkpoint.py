from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import VOCABULARY, tiny_model, tiny_tokenizer
from torch import Tensor
from transformers import AutoTokenizer, BertForMaskedLM

from dupmae import checkpoint
from dupmae import folder as folder_module
from dupmae.card import Card
from dupmae.checkpoint import load_model, save_model
from dupmae.errors import CheckpointError, UsageError
from dupmae.folder import shipped_model
from dupmae.heads import HeadSettings
from dupmae.model import DupMAE

Tensors = dict[str, Tensor]
NO_MLM_HEAD = ("MLM head transform (random until fitted)", "MLM head bias (zero)")
NO_HEADS = ("W_cls (identity)", "query term weights (all one)", "query gain (always one)")
NO_OPTIONS = (
    "[CLS] attention (the mean of all states)",
    "idf of the training text (all one)",
    "neighbours of terms (none)",
)
GAIN = ("query_log_gain.weight", "query_log_gain.bias")
BODY = "bert."


def published(model: DupMAE | None = None) -> Tensors:
    """Return what `BertForMaskedLM.save_pretrained` of old wrote: the tied decoder included."""
    state = (model or tiny_model()).lm.state_dict()
    return {name: tensor.clone() for name, tensor in state.items()}


def write_folder(
    folder: Path, tensors: Tensors, *, file: str = "model.safetensors", **config: object
) -> Path:
    """Write a folder as others publish it: configuration, weights, vocab.txt."""
    folder.mkdir(parents=True)
    content = tiny_model().lm.config.to_dict()
    content |= {"architectures": ["BertForMaskedLM"], "_name_or_path": "/home/someone"} | config
    (folder / "config.json").write_text(json.dumps(content))
    if file.endswith(".safetensors"):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file)
    else:
        torch.save(tensors, folder / file)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return folder


def body(model: DupMAE) -> Tensors:
    return {n: t.detach() for n, t in model.lm.named_parameters() if n.startswith(BODY)}


def assert_equal_tensors(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def all_parameters(model: DupMAE) -> Tensors:
    return {name: tensor.detach() for name, tensor in model.named_parameters()}


def with_options() -> DupMAE:
    return tiny_model(cls_attention=True, corpus_idf=0.5, k_neighbours=3)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "tiny", name="tiny-one")
    return tmp_path / "tiny"


# Our own folders


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


# Others' folders


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


def without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {
        name: tensor for name, tensor in tensors.items() if not any(p in name for p in parts)
    }


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


# What is refused, each in one line


def refused(folder: Path | str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_or_no_model_is_refused(tmp_path):
    refused(tmp_path / "no" / "where", "there is no model folder")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is a file; a model is a folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"has no config\.json; is it a model folder\?")


def test_a_hub_name_that_cannot_be_had_is_refused_in_one_line():
    refused("no-such-org/no-such-model", "no model folder .* the Hugging Face hub did not give one")


def test_a_hub_name_is_looked_up_on_the_hub_and_names_the_model(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "snapshots" / "0123abcd", published())
    asked = []

    def snapshot_download(repo: str, *, allow_patterns: list[str]) -> str:
        asked.append((repo, "pytorch_model.bin" in allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert load_model("Shitao/RetroMAE").name == "Shitao/RetroMAE"
    assert asked == [("Shitao/RetroMAE", True)]


def test_other_architectures_are_refused(tmp_path):
    refused(
        write_folder(tmp_path / "r", published(), model_type="roberta"),
        "a model of type 'roberta'; only 'bert'",
    )
    refused(
        write_folder(tmp_path / "p", published(), position_embedding_type="relative_key"),
        "'relative_key' positions; only 'absolute'",
    )
    refused(
        write_folder(tmp_path / "h", published(), num_attention_heads=5), "describes no BERT: .*5"
    )


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_damaged_configuration_is_refused(saved, content):
    (saved / "config.json").write_text(content, encoding="latin-1")
    refused(saved, r"config\.json")


def test_tensors_of_another_shape_are_refused(tmp_path):
    refused(
        write_folder(tmp_path / "m", published(), intermediate_size=128),
        r"should be \(128\b.*found \(64",
    )


def test_more_layers_than_the_configuration_has_are_refused(tmp_path):
    refused(
        write_folder(tmp_path / "m", published(), num_hidden_layers=1),
        "leaves no place for bert.encoder.layer.1",
    )


def test_a_body_that_lacks_tensors_is_refused(tmp_path):
    refused(
        write_folder(tmp_path / "m", without("layer.1.")(published())),
        r"lacks 16 of the encoder's tensors, the first is bert\.encoder\.layer\.1\.",
    )


def test_an_untied_decoder_is_refused(tmp_path):
    tensors = published()
    tensors["cls.predictions.decoder.weight"] = torch.ones(200, 32)
    refused(write_folder(tmp_path / "m", tensors), "only tied heads are supported")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    tensors = published()
    tensors["bert.embeddings.LayerNorm.bias"][3] = torch.nan
    refused(
        write_folder(tmp_path / "m", tensors), "LayerNorm.bias holds values that are not finite"
    )


def test_missing_and_sharded_weights_are_refused(tmp_path):
    folder = write_folder(tmp_path / "m", published())
    (folder / "model.safetensors").unlink()
    refused(folder, "holds no weights: neither model.safetensors nor pytorch_model.bin")
    (folder / "model.safetensors.index.json").write_text("{}")
    refused(folder, "holds its weights in several files")


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b""])
def test_damaged_weights_are_refused(tmp_path, file, damage):
    folder = write_folder(tmp_path / "m", published(), file=file)
    (folder / file).write_bytes(damage((folder / file).read_bytes()))
    refused(folder, file)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("proof-of-execution"),)  # type: ignore[return-value]


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "m", {}, file="pytorch_model.bin")
    torch.save({"a": Payload()}, folder / "pytorch_model.bin")
    refused(folder, "holds more than tensors, and is not unpickled for safety")
    assert not Path("proof-of-execution").exists()


def test_a_missing_damaged_or_foreign_tokenizer_is_refused(tmp_path, saved):
    folder = write_folder(tmp_path / "m", published())
    (folder / "vocab.txt").unlink()
    refused(folder, "holds no tokenizer")
    (saved / "tokenizer.json").write_text("{")
    refused(saved, "the tokenizer in .* cannot be read")
    larger = write_folder(tmp_path / "l", published())
    (larger / "vocab.txt").write_text("\n".join([*VOCABULARY, "more"]) + "\n")
    refused(larger, "knows 201 tokens, the model only 200")


def change_settings(folder: Path, **changes: object) -> None:
    path = folder / "dupmae.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_settings_of_a_newer_or_unknown_kind_are_refused(saved):
    change_settings(saved, format=2)
    refused(saved, "format 2, this version of dupmae reads up to 1; upgrade dupmae")
    change_settings(saved, format=1, heads={"k_docs": 3})
    refused(saved, "unknown settings: k_docs")
    change_settings(saved, heads={"k_document": 0})
    refused(saved, r"dupmae\.json: k_document must be at least 1")
    change_settings(saved, heads=None)
    refused(saved, "must hold 'format' and 'heads'")


def test_a_folder_of_ours_without_its_heads_is_refused(saved):
    (saved / "heads.safetensors").unlink()
    refused(saved, "no heads.safetensors; it is damaged")


def test_an_installation_without_the_shipped_model_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module.resources, "files", lambda _: tmp_path)
    with pytest.raises(CheckpointError, match="this installation carries no model at"):
        shipped_model()
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "models" / "dupmae-mini", name="mini")
    assert load_model(shipped_model()).name == "mini"
