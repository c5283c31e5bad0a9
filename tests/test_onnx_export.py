"""`export --onnx`: any model as a folder without torch, and a graph for other programs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from command_line import one_line, run
from model_folders import published, write_folder
from tiny_model import VOCABULARY, WORDS, tiny_model, tiny_tokenizer
from tokenizers import Tokenizer

from dupmae import onnx_export, onnx_format
from dupmae.checkpoint import save_model
from dupmae.encoder import Encoder
from dupmae.errors import CheckpointError, UsageError
from dupmae.onnx_export import export_onnx
from dupmae.onnx_format import Graph
from dupmae.stored import StoredModel
from dupmae.torch_encoder import TorchEncoder

TEXTS = ["ba be bade fifo", "zuzo", " ".join(WORDS[:30])]
TUNED = {
    "expansion": 0.4,
    "k_neighbours": 3,
    "frequency_k1": 0.6,
    "corpus_idf": 0.5,
    "normalize_query_terms": True,
    "query_norm": 1.25,
}


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Return a model folder as others publish it, which only torch can run."""
    return write_folder(tmp_path / "foreign", published())


def saved(folder: Path, **settings: object) -> Path:
    save_model(tiny_model(**settings), tiny_tokenizer(), folder, name="tiny")
    return folder


def run_graph(folder: Path, texts: list[str]) -> dict[str, Any]:
    """Run what is in a folder as another program would: with no code of ours."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(texts)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    inputs = {
        "input_ids": np.array([encoding.ids for encoding in encodings]),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
    }
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def test_another_makers_model_then_runs_without_torch_and_gives_torchs_vectors(
    foreign: Path, tmp_path: Path
) -> None:
    done = export_onnx(foreign, tmp_path / "out")
    encoder, expected = Encoder.load(tmp_path / "out"), TorchEncoder.load(foreign)
    assert (done.seal, done.name) == (encoder.seal, "foreign")
    assert encoder.seal == expected.seal
    found, wanted = encoder.encode_documents(TEXTS), expected.encode_documents(TEXTS)
    np.testing.assert_allclose(found.dense, wanted.dense, atol=1e-5)
    np.testing.assert_array_equal(found.sparse.terms, wanted.sparse.terms)
    assert 0 < done.dense < 1e-5
    assert 0 < done.sparse < 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"activation": "log1p2_relu"},
        {"cls_attention": True},
        {"normalize": False, "dense_dim": 24},
    ],
    ids=str,
)
def test_the_graph_gives_both_vectors_to_other_programs(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    export_onnx(saved(tmp_path / "tiny", k_document=200, **settings), tmp_path / "out")
    found = run_graph(tmp_path / "out", TEXTS)
    documents = Encoder.load(tmp_path / "out").encode_documents(TEXTS)
    np.testing.assert_allclose(found["dense"], documents.dense, atol=1e-5)
    assert found["sparse"].shape == (len(TEXTS), len(VOCABULARY))
    for sparse_V, (terms, weights) in zip(found["sparse"], documents.sparse, strict=True):
        np.testing.assert_array_equal(np.flatnonzero(sparse_V), terms)
        np.testing.assert_allclose(sparse_V[terms], weights, atol=1e-5)


def test_the_graph_gives_queries_too(tmp_path: Path) -> None:
    model = tiny_model(k_query=200)
    save_model(model, tiny_tokenizer(), tmp_path / "tiny", name="tiny")
    export_onnx(tmp_path / "tiny", tmp_path / "out")
    found = run_graph(tmp_path / "out", ["ba be"])
    (terms, weights) = Encoder.load(tmp_path / "out").encode_queries(["ba be"]).sparse.row(0)
    factors_V = model.query_term_weight.relu().detach().numpy() * np.exp(found["log_gain"][0, 0])
    own = [VOCABULARY.index(term) for term in ("ba", "be")]
    query_V = found["sparse"][0] * factors_V
    for term in own:
        assert weights[terms == term] == pytest.approx(query_V[term], abs=1e-5)


@pytest.mark.parametrize("settings", [TUNED, {"expansion": 0.0}], ids=str)
def test_all_settings_go_along_and_are_compared(settings: dict[str, Any], tmp_path: Path) -> None:
    source = saved(tmp_path / "tiny", **settings)
    (source / "README.md").write_text("# Ours\n")
    done = export_onnx(source, tmp_path / "out")
    assert Encoder.load(tmp_path / "out").seal == Encoder.load(source).seal == done.seal
    assert Encoder.load(tmp_path / "out").heads == Encoder.load(source).heads
    assert (tmp_path / "out" / "README.md").read_text() == "# Ours\n"
    assert (tmp_path / "out" / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_model_in_half_precision_keeps_its_seal(tmp_path: Path) -> None:
    TorchEncoder(tiny_model(), tiny_tokenizer(), "tiny").save(
        tmp_path / "half", half_precision=True
    )
    done = export_onnx(tmp_path / "half", tmp_path / "out")
    assert done.seal == Encoder.load(tmp_path / "half").seal


@pytest.mark.parametrize("wrong", ["dense", "terms", "gain", "not a number", "folder"])
def test_what_is_not_torchs_is_not_left_there(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = saved(tmp_path / "tiny"), saved(tmp_path / "out", expansion=0.0)
    before = sorted((path.name, path.read_bytes()) for path in out.iterdir())

    def damaged(model: StoredModel) -> Graph:
        name = {
            "dense": "cls_projection.weight",
            "terms": "lm.cls.predictions.bias",
            "gain": "query_log_gain.bias",
            "not a number": "query_log_gain.bias",
        }[wrong]
        factor = np.float32("nan" if wrong == "not a number" else 1.001)
        other = dict(model.weights) | {name: model.weights[name] * factor}
        return build_whole(replace(model, weights=other))

    build_whole = onnx_export.build_whole
    if wrong == "folder":
        monkeypatch.setattr("dupmae.runtime.MASKED", 0.0)
    else:
        monkeypatch.setattr(onnx_export, "build_whole", damaged)
    if wrong == "dense":  # normalised, a factor would be no change
        monkeypatch.setattr("dupmae.whole_graph._unit", lambda graph, vectors: vectors)
    with pytest.raises(CheckpointError, match="tiny would give other vectors than by torch: "):
        export_onnx(source, out)
    assert sorted((path.name, path.read_bytes()) for path in out.iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny"]


def test_what_cannot_be_exported_is_said_and_nothing_is_written(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="foreign is the model itself; export to another folder"):
        export_onnx(foreign, foreign)
    silu = write_folder(tmp_path / "silu", published(), hidden_act="silu")
    with pytest.raises(UsageError, match="silu can only be run by torch: its hidden_act is 'silu'"):
        export_onnx(silu, tmp_path / "out")
    with pytest.raises(CheckpointError, match="there is no model folder"):
        export_onnx(tmp_path / "absent", tmp_path / "out")
    monkeypatch.setattr(onnx_format, "MOST_BYTES", 1000)
    with pytest.raises(UsageError, match=r"holds at most 1000 bytes, found \d+ of weights"):
        export_onnx(foreign, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "silu"]


def test_other_files_are_never_replaced_and_an_export_is(foreign: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        export_onnx(foreign, out)
    saved(out)
    assert not (out / "model.onnx").exists()  # it would be the old model's
    (out / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"notes\.txt, which is no part of a model"):
        export_onnx(foreign, out)
    assert (out / "notes.txt").read_text() == "mine"


WITHOUT_TORCH = """\
import sys
sys.modules |= {"torch": None, "transformers": None}
from dupmae.cli import main
main()
"""


def test_the_command_writes_beside_the_model_what_runs_where_torch_is_not(
    foreign: Path, here: Path, corpus: Path
) -> None:
    result = run("export", "foreign/", "--onnx")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()[-1:]
    assert line.startswith("foreign-onnx holds foreign (seal ")
    assert "; --model foreign-onnx runs it without torch. In 16 texts dense values are off" in line
    for command in (["index", str(corpus)], ["search", "ke", "--json"]):
        arguments = [sys.executable, "-c", WITHOUT_TORCH, *command, "--model", "foreign-onnx"]
        ran = subprocess.run(arguments, cwd=here, check=True, stdout=subprocess.PIPE, text=True)
    assert len(json.loads(ran.stdout)["hits"]) == 3


def test_the_command_refuses_what_does_not_go_together(here: Path) -> None:
    one_line(run("export", "m", "--onnx", "--index", "i"), 2, "--onnx", "--index")
    one_line(run("export", "m.npz", "--out", "o"), 2, "--out", "--onnx")
    one_line(run("export", "absent", "--onnx"), 1, "there is no model folder absent")


def test_a_hub_model_and_the_present_folder_have_a_name_for_their_export(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def export(model: str, out: Path) -> onnx_export.Exported:
        asked.append((model, str(out)))
        return onnx_export.Exported("m", "0" * 64, 0.0, 0.0)

    monkeypatch.setattr(onnx_export, "export_onnx", export)
    for model in ("org/name", "."):
        assert run("export", model, "--onnx").exit_code == 0
    assert run("export", "m", "--onnx", "--out", "o").exit_code == 0
    assert asked == [("org/name", "name-onnx"), (".", f"{here}-onnx"), ("m", "o")]
