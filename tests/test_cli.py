"""What all commands share: imports, exit codes, and `eval` on a small collection."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import one_line, run
from tiny_model import tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model
from dupmae.cli import main


def test_no_index_is_exit_3(here: Path, model: Path) -> None:
    one_line(run("search", "ba", "--model", str(model)), 3, "dupmae.index")


def test_a_half_deleted_index_is_exit_3(indexed: Path, model: Path) -> None:
    weights = next(indexed.glob("segments/*/forward/weights.npy"))
    weights.unlink()
    one_line(run("search", "ba", "--model", str(model)), 3, "weights.npy")


def test_a_newer_format_is_exit_3(indexed: Path, model: Path) -> None:
    manifest = json.loads((indexed / "MANIFEST.json").read_text())
    manifest["format_version"] = 99
    (indexed / "MANIFEST.json").write_text(json.dumps(manifest))
    one_line(run("search", "ba", "--model", str(model)), 3, "99")


def test_another_encoder_is_exit_4(indexed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    save_model(tiny_model(expansion=0.0, k_document=3), tiny_tokenizer(), other, name="other")
    one_line(run("search", "ba", "--model", str(other)), 4, "tiny", "other")


def test_a_missing_model_is_exit_1(indexed: Path) -> None:
    one_line(run("search", "ba", "--model", "no/such/folder"), 1, "no/such/folder")


COMMANDS = ["", *main.commands]
HELP = """
import contextlib, io, json, sys
from dupmae.cli import main
heavy = {"torch", "transformers", "numpy", "scipy", "faiss", "tantivy"}
seen = {}
for command in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main([*command.split(), "--help"], standalone_mode=False)
    seen[command] = [said.getvalue(), sorted(heavy & set(sys.modules))]
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def helped() -> dict[str, tuple[str, list[str]]]:
    """Return what each command says of itself, and what heavy modules were imported until then."""
    command = [sys.executable, "-c", HELP, *COMMANDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command or "dupmae")
def test_help_imports_nothing_heavy(helped: dict[str, tuple[str, list[str]]], command: str) -> None:
    said, heavy = helped[command]
    assert "Usage:" in said
    assert not heavy, heavy


def test_eval_measures_a_collection_found_under_data(here: Path, model: Path, corpus: Path) -> None:
    folder = here / "data" / "toy"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_bytes(corpus.read_bytes())
    (folder / "queries.jsonl").write_text('{"_id": "sea", "text": "ba be"}\n')
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nsea\tsun\t1\nsea\tsea\t1\n"
    )
    arguments = ["eval", "--beir", "toy", "--data", "data", "--json", "--model", str(model)]
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert list(report)[:6] == ["collection", "split", "systems", "proven", "model", "index"]
    assert list(report["systems"]) == ["hybrid", "dense", "sparse"]
    assert set(report["systems"]["hybrid"]) == {"nDCG@10", "R@100", "RR@10", "AP"}
    assert report["proven"] == 1.0
    assert report["dropped_self_hits"]["hybrid"] == 1
    created = json.loads((here / "runs/eval/toy/index/MANIFEST.json").read_text())["created"]
    lines = (here / "runs/eval/toy/hybrid.trec").read_text().splitlines()
    assert [line.split()[2] for line in lines].count("sea") == 0

    assert run(*arguments).exit_code == 0
    again = json.loads((here / "runs/eval/toy/index/MANIFEST.json").read_text())["created"]
    assert again == created, "an index of the same corpus and encoder is used again"

    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "new", "text": "ba"}\n')
    assert json.loads(run(*arguments).stdout)["documents"] == 4


def test_an_unknown_collection_is_one_line(
    here: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUPMAE_CACHE", str(here / "cache"))
    one_line(run("eval", "--beir", "nonesuch", "--model", str(model)), 1, "nonesuch")
