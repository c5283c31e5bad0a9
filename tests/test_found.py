from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeEncoder, WordReader

from dupmae.engine import Chunk, SearchEngine, build_index, delete_documents, look_up, snippets
from dupmae.errors import DataError
from dupmae.types import Document

DOCUMENTS = [
    Document("a", "whale sea", "one", {"n": 1}),
    Document("b", "ship sea storm", metadata={"n": 2}),
    Document("c", "whale whale ship", metadata={"n": 1}),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("found") / "my.index"
    for document in (Document("gone", "whale"), *DOCUMENTS):  # a segment each
        build_index([document], FakeEncoder(), folder)
    delete_documents(folder, ["gone"])
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        yield engine


@pytest.mark.parametrize("where", [None, "n = 1"])
def test_hits_come_with_their_documents_snippets_and_ranks(
    engine: SearchEngine, where: str | None
) -> None:
    result = engine.search("whale ship", offset=1, where=where)
    found = look_up(engine, result, offset=1)
    assert [each.rank for each in found] == list(range(2, 2 + len(result.hits)))
    assert tuple(each.hit for each in found) == result.hits
    documents = {document.doc_id: document for document in DOCUMENTS}
    assert [each.document for each in found] == [documents[each.hit.doc_id] for each in found]
    ids = [hit.doc_id for hit in result.hits]
    assert [each.snippet for each in found] == snippets(engine, result, ids)
    assert {each.passage_text for each in found} == {""}
    assert not any(each.snippet for each in look_up(engine, result, with_snippets=False))


def test_the_passage_that_scores_comes_with_its_text(tmp_path: Path) -> None:
    encoder = WordReader(16)
    text = "one two three four five. whale ship sea storm mast."
    build_index([Document("d", text)], encoder, tmp_path / "i", chunk=Chunk(5, 0))
    with SearchEngine.open(tmp_path / "i", encoder) as engine:
        (found,) = look_up(engine, engine.search("whale storm"))
    assert found.passage_text == "whale ship sea storm mast."


def test_ids_are_looked_up_together_and_one_that_is_not_there_is_named(
    engine: SearchEngine,
) -> None:
    view = engine.select("n = 1")
    assert view.documents.ordinals(["c", "a", "c"]) == [1, 0, 1]
    assert view.documents.ordinals([]) == []
    for absent in ("b", "gone"):
        with pytest.raises(DataError, match=f"'{absent}'"):
            view.documents.ordinals(["a", absent])
