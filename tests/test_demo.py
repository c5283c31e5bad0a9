"""Facts about the built-in corpus and the queries made of it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from dupmae.errors import DataError
from dupmae.eval.catalogue import open_collection
from dupmae.eval.demo import _first_sentence, demo_collection, demo_documents
from dupmae.types import Document


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    return {document.doc_id: document for document in demo_documents()}


@pytest.mark.slow
def test_the_corpus_has_a_few_thousand_distinct_documents(documents: dict[str, Document]) -> None:
    assert 2500 < len(documents) < 8000
    assert list(documents) == sorted(documents)
    assert max(Counter(document.text for document in documents.values()).values()) == 1
    kinds = Counter(document.metadata["kind"] for document in documents.values())
    assert kinds.keys() == {"module", "class", "function", "method", "property"}
    assert min(kinds.values()) > 20


@pytest.fixture
def _made_once(documents: dict[str, Document], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dupmae.eval.demo.demo_documents", lambda: iter(documents.values()))


def test_well_known_names_are_there(documents: dict[str, Document]) -> None:
    assert documents["json.loads"].title.startswith("json.loads(s, *, cls=None, object_hook=None")
    assert documents["json.loads"].text.startswith("Deserialize ``s``")
    assert documents["str.split"].title == "str.split(sep=None, maxsplit=-1)"
    assert documents["str.casefold"].title == "str.casefold()"
    assert documents["os.path.join"].title == "os.path.join(a, *p)"
    assert documents["pathlib.Path.resolve"].title == "pathlib.Path.resolve(strict=False)"
    assert documents["subprocess.Popen"].title == "class subprocess.Popen"
    assert documents["heapq"].metadata == {"kind": "module", "module": "heapq"}
    assert documents["collections.abc.Set.isdisjoint"].metadata["kind"] == "method"


def test_nothing_private_and_no_test_is_in_it(documents: dict[str, Document]) -> None:
    parts = {part for doc_id in documents for part in doc_id.split(".")}
    assert not [part for part in parts if part.startswith("_")]
    modules = {document.metadata["module"].split(".")[0] for document in documents.values()}
    assert modules.isdisjoint({"this", "antigravity", "tkinter", "idlelib", "test", "turtledemo"})


def digest(documents: Iterable[Document]) -> str:
    return hashlib.sha256(repr(list(documents)).encode()).hexdigest()


@pytest.mark.slow
def test_another_process_makes_the_same_corpus_and_runs_no_module_of_the_library(
    documents: dict[str, Document],
) -> None:
    program = (
        "import sys, hashlib; from dupmae.eval.demo import demo_documents; "
        "before = set(sys.modules); documents = list(demo_documents()); "
        "print(hashlib.sha256(repr(documents).encode()).hexdigest(), "
        "*sorted(set(sys.modules) - before))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONHASHSEED": "42"},
    )
    its_digest, *imported = ran.stdout.split()
    assert its_digest == digest(documents.values())
    # Only those written in C that are asked for their docstrings; all others are parsed.
    imported = [name for name in imported if not name.startswith("_sysconfigdata")]
    assert set(imported) <= {"array", "cmath", "gc", "unicodedata", "binascii", "marshal"}


def test_a_machine_without_the_library_sources_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(DataError, match=r"no Python sources in .*index a corpus of your own"):
        list(demo_documents())


@pytest.mark.parametrize(
    ("text", "sentence", "rest"),
    [
        ("Return x.  Raise KeyError if\nnot there.", "Return x.", "Raise KeyError if\nnot there."),
        ("Return\nx\n\nThe rest.", "Return x", "The rest."),
        ("Use it, e.g. Xerxes did. Then stop.", "Use it, e.g. Xerxes did.", "Then stop."),
        ("Version 3.11 of x.y is out. `Run` it.", "Version 3.11 of x.y is out.", "`Run` it."),
        ("All in one", "All in one", ""),
    ],
)
def test_the_first_sentence_ends_where_a_reader_would_end_it(
    text: str, sentence: str, rest: str
) -> None:
    assert _first_sentence(text) == (sentence, rest)


@pytest.mark.usefixtures("_made_once")
def test_each_query_is_the_missing_first_sentence_of_its_one_document(
    documents: dict[str, Document], tmp_path: Path
) -> None:
    collection = demo_collection(tmp_path / "demo")
    lines = collection.corpus_path.read_text(encoding="utf-8").splitlines()
    corpus = {record["_id"]: record for record in map(json.loads, lines)}
    assert corpus.keys() == documents.keys()
    assert len(collection.queries) == 500
    assert len(set(collection.queries.values())) == 500
    for query_id, sentence in collection.queries.items():
        ((target, grade),) = collection.qrels[query_id].items()
        assert (grade, query_id) == (1, f"about-{target}")
        assert query_id not in corpus
        whole = " ".join(documents[target].text.split())
        assert whole == f"{sentence} {' '.join(corpus[target]['text'].split())}"
    untouched = documents.keys() - {next(iter(judged)) for judged in collection.qrels.values()}
    assert all(corpus[doc_id]["text"] == documents[doc_id].text for doc_id in untouched)


@pytest.mark.usefixtures("_made_once")
def test_the_same_collection_is_made_each_time_and_another_with_another_seed(
    tmp_path: Path,
) -> None:
    first = demo_collection(tmp_path / "a", size=50)
    again = demo_collection(tmp_path / "b", size=50)
    other = demo_collection(tmp_path / "c", size=50, seed=1)
    assert first.corpus_path.read_bytes() == again.corpus_path.read_bytes()
    assert first.queries == again.queries
    assert first.queries != other.queries


@pytest.mark.usefixtures("_made_once")
def test_the_demo_goes_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DUPMAE_CACHE", str(tmp_path))
    collection = open_collection("demo")
    assert (collection.name, collection.split) == ("demo", "test")
    assert collection.corpus_path == tmp_path / "beir" / "demo" / "corpus.jsonl"
