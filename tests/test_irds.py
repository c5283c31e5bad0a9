"""Collections of ir_datasets, from datasets that the tests register themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny_model import tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model
from dupmae.cli import main
from dupmae.errors import DataError, UsageError
from dupmae.eval import open_collection

ir_datasets = pytest.importorskip("ir_datasets", reason="ir_datasets is not installed")

from ir_datasets.datasets.base import Dataset  # noqa: E402
from ir_datasets.formats import (  # noqa: E402
    BaseDocs,
    BaseQrels,
    BaseQueries,
    GenericDoc,
    GenericQrel,
    GenericQuery,
)

DOCS = [("d1", "ba be"), ("d2", " ki ko "), ("d3", "ba ba")]
QUERIES = [("q1", "ba"), ("q2", "ki"), ("unjudged", "ko")]
QRELS = [("q1", "d1", 2), ("q1", "d3", -1), ("q2", "d2", 1), ("q2", "d2", 1)]


class Docs(BaseDocs):
    def docs_iter(self) -> Iterator[GenericDoc]:
        return (GenericDoc(*row) for row in DOCS)


class Queries(BaseQueries):
    def queries_iter(self) -> Iterator[GenericQuery]:
        return (GenericQuery(*row) for row in QUERIES)


class Qrels(BaseQrels):
    def __init__(self, rows: list[tuple[str, str, int]]) -> None:
        self.rows = rows

    def qrels_iter(self) -> Iterator[GenericQrel]:
        return (GenericQrel(*row) for row in self.rows)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Register a local dataset with two splits, and leave the registry as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUPMAE_CACHE", str(tmp_path / "cache"))
    registered = dict(ir_datasets.registry._registered)
    monkeypatch.setattr(ir_datasets.registry, "_registered", registered)
    docs, queries = Docs(), Queries()
    made: dict[str, list[Any]] = {
        "toy": [docs],
        "toy/dev/small": [docs, queries, Qrels(QRELS)],
        "toy/odd": [docs, queries, Qrels([*QRELS, ("q1", "d1", 0)])],
        "toy/textless": [docs, queries, Qrels([("q9", "d1", 1)])],
        "toy/empty": [docs, queries, Qrels([])],
    }
    for name, parts in made.items():
        registered[name] = Dataset(*parts)
    return tmp_path


def test_an_id_gives_queries_judgements_and_a_copy_of_the_corpus(here: Path) -> None:
    collection = open_collection("irds:toy/dev/small")
    assert (collection.name, collection.split) == ("toy", "dev/small")
    assert collection.queries == {"q1": "ba", "q2": "ki"}
    assert collection.qrels == {"q1": {"d1": 2, "d3": -1}, "q2": {"d2": 1}}
    assert collection.repeated_judgements == 1
    assert collection.corpus_path == here / "cache/irds/toy/corpus.jsonl"
    lines = collection.corpus_path.read_text().splitlines()
    assert [tuple(json.loads(line).values()) for line in lines] == [
        ("d1", "ba be"),
        ("d2", "ki ko"),
        ("d3", "ba ba"),
    ]


def test_the_corpus_is_copied_once(here: Path) -> None:
    path = open_collection("irds:toy/dev/small").corpus_path
    path.write_text("kept")
    assert open_collection("irds:toy/dev/small").corpus_path.read_text() == "kept"


@pytest.mark.parametrize(
    ("dataset_id", "message"),
    [
        ("toy/dev/smal", "ir_datasets knows no 'toy/dev/smal'; the nearest is toy/dev/small"),
        ("toy", "toy of ir_datasets has no queries; an evaluation needs"),
        ("toy/odd", "judges document 'd1' for query 'q1' as 0, and before as 2"),
        ("toy/textless", "judges query 'q9', which has no text there"),
        ("toy/empty", "holds no judgements"),
    ],
)
def test_an_id_that_cannot_be_evaluated_is_refused(dataset_id: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_collection(f"irds:{dataset_id}")


def test_whatever_fails_in_the_library_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Docs) -> Iterator[GenericDoc]:
        raise RuntimeError("a licence\nis needed")

    monkeypatch.setattr(Docs, "docs_iter", fails)
    with pytest.raises(DataError, match="cannot provide toy/dev/small: a licence is needed"):
        open_collection("irds:toy/dev/small")


def test_a_split_beside_an_id_is_refused() -> None:
    with pytest.raises(UsageError, match="names its split, so --split test says nothing"):
        open_collection("irds:toy/dev/small", split="test")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'dupmae\[ir-datasets\]'"):
        open_collection("irds:toy/dev/small")


def test_eval_takes_an_id(here: Path) -> None:
    save_model(tiny_model(), tiny_tokenizer(), here / "tiny", name="tiny")
    options = ["--beir", "irds:toy/dev/small", "--model", "tiny", "--systems", "bm25,hybrid"]
    result = CliRunner().invoke(main, ["eval", *options, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["collection"], report["split"], report["queries"]) == ("toy", "dev/small", 2)
    assert report["judgements"]["negative"] == 1
    assert report["judgements"]["repeated"] == 1
    assert (here / "runs/eval/toy/report.json").is_file()
