"""What is no model folder, or a damaged one, is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from model_folders import published, without, write_folder
from tiny_model import VOCABULARY, tiny_model, tiny_tokenizer

from dupmae import folder as folder_module
from dupmae.checkpoint import load_model, save_model
from dupmae.errors import CheckpointError
from dupmae.folder import shipped_model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "tiny", name="tiny-one")
    return tmp_path / "tiny"


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
