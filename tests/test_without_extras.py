"""What can be done, and what is said, where nothing is installed that an extra brings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_model import tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model
from dupmae.cli import main
from dupmae.commands.extras import EXTRAS

WITHOUT = f"""\
import contextlib, io, json, sys
sys.modules |= dict.fromkeys({[name for names, _ in EXTRAS.values() for name in names]})
from dupmae.cli import main  # to import one of these is an ImportError
for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main(command, standalone_mode=False)
    print(json.dumps(said.getvalue()))
"""
CORPUS = '{"_id": "sea", "text": "be bi bo"}\n{"_id": "sky", "text": "ka ke"}\n'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tiny_model(expansion=0.0), tiny_tokenizer(), tmp_path / "tiny", name="tiny")
    return tmp_path / "tiny"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text(CORPUS)
    return path


def without_extras(folder: Path, *commands: list[str]) -> list[str]:
    """Return what commands print that are run one after the other in a new process."""
    command = [sys.executable, "-c", WITHOUT, json.dumps(commands)]
    ran = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_a_corpus_is_indexed_searched_and_explained(
    tmp_path: Path, corpus: Path, model: Path
) -> None:
    _, answer, explained = without_extras(
        tmp_path,
        ["index", str(corpus), "--model", str(model)],
        ["search", "ke", "--json", "--model", str(model)],
        ["explain", "ke", "sky", "--json", "--model", str(model)],
    )
    hits = json.loads(answer)["hits"]
    assert (hits[0]["id"], len(hits)) == ("sky", 2)
    assert json.loads(explained)["score"] == hits[0]["score"]


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("train", ["pretrain"]),
        ("train", ["finetune"]),
        ("train", ["adapt", "corpus.jsonl"]),
        ("train", ["export", "model", "--onnx"]),
        ("eval", ["eval", "--beir", "demo"]),
        ("serve", ["serve"]),
        ("mcp", ["mcp"]),
    ],
)
def test_a_command_says_in_one_line_what_to_install(
    extra: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for missing in EXTRAS[extra][0]:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)
            result = CliRunner().invoke(main, command)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"Error: {command[0]} ")
        assert f" needs {missing}, not installed; pip install " in line
        assert f"'dupmae[{extra}]'" in line


def test_a_model_that_only_torch_can_run_is_run_by_it_or_refused_in_one_line(
    tmp_path: Path, corpus: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "dupmae.json").unlink()
    (model / "heads.safetensors").unlink()
    index = str(tmp_path / "index")
    command = ["index", str(corpus), "--model", str(model), "--index", index, "--replace"]
    assert CliRunner().invoke(main, command).exit_code == 0
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert f"{model} can only be run by torch, since it has no dupmae.json" in line
