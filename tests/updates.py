"""Documents to update an index with, and what the index then should hold and answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from fakes import FakeEncoder

from dupmae.engine import SearchEngine, build_index, read_manifest
from dupmae.types import Document

WORDS = ["whale", "ship", "sea", "captain", "harpoon", "storm"]
QUERIES = ["whale sea", "captain", "ship storm harpoon", "unheard", ""]


def encoder() -> FakeEncoder:
    return FakeEncoder(corpus_idf=True)


def document(number: int, version: int = 0) -> Document:
    """Return a text of words in a pattern that repeats, so that many scores are equal."""
    steps = (1, 2, 3 + version)
    text = " ".join(WORDS[(number * step + version) % 6] for step in steps)
    return Document(
        f"d{number}", text, WORDS[version % 2], {"version": version, "n": [number, None]}
    )


def answers(folder: Path) -> list[list[tuple[str, float, float, float]]]:
    """Return ids and scores, to the last bit, of many queries with and without feedback."""
    with SearchEngine.open(folder, encoder()) as engine:
        found = []
        for k, feedback, dense_weight in ((3, 0.0, 1.0), (1000, 0.4, 1.0), (5, 0.0, 0.0)):
            results = engine.search_batch(QUERIES, k, feedback=feedback, dense_weight=dense_weight)
            assert all(result.proven for result in results)
            found += [[(h.doc_id, h.score, h.dense, h.sparse) for h in r.hits] for r in results]
        return found


def texts(folder: Path) -> list[Document]:
    with SearchEngine.open(folder, encoder()) as engine:
        assert [engine.documents.ordinal(d) for d in engine.documents.ids(range(len(engine)))] == (
            list(range(len(engine)))
        )
        return engine.documents.get(range(len(engine)))


def assert_as_built_of(folder: Path, documents: Sequence[Document]) -> None:
    assert texts(folder) == list(documents)
    assert read_manifest(folder).documents == len(documents)
    if not documents:
        assert answers(folder) == [[]] * len(answers(folder))
        return
    with TemporaryDirectory() as other:
        build_index(documents, encoder(), Path(other) / "fresh")
        assert answers(folder) == answers(Path(other) / "fresh")


def clean(folder: Path) -> bool:
    """Say whether the folder holds what its manifest names and nothing else."""
    named = {file.path for file in read_manifest(folder).files} | {"MANIFEST.json", "WRITER.lock"}
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return found == named


@dataclass
class Model:
    """What an index should hold, as a list of documents in order."""

    documents: list[Document] = field(default_factory=list)

    def add(self, documents: Sequence[Document]) -> None:
        new = {document.doc_id for document in documents}
        self.delete(new)
        self.documents += documents

    def delete(self, ids: set[str]) -> None:
        self.documents = [document for document in self.documents if document.doc_id not in ids]


def names(folder: Path) -> list[tuple[str, int, int]]:
    return [(s.name, s.documents, s.deleted) for s in read_manifest(folder).segments]
