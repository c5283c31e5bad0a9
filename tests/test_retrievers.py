"""The retrievers of other frameworks, in the frameworks themselves where they are installed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder

from dupmae.engine import SearchEngine, build_index
from dupmae.errors import UsageError
from dupmae.heads import HeadSettings
from dupmae.integrations.retrieval import retrieve
from dupmae.types import Document

DOCUMENTS = [
    Document("whale", "the whale and the sea", "Moby", {"year": 1851, "score": "mine"}),
    Document("ship", "the ship and the sea", "", {"year": 1900}),
    Document("storm", "a storm at sea", "Wind", {"year": 1900, "title": "its own"}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retrievers") / "my.index"
    build_index(DOCUMENTS, FakeEncoder(), folder)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[SearchEngine]:
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        yield engine


def expected(engine: SearchEngine, query: str, k: int, where: str | None = None) -> list[Any]:
    """Return id, text, score and metadata of what a retriever should give."""
    return [
        (found.doc_id, found.text, found.score, found.metadata)
        for found in retrieve(engine, query, k, where)
    ]


def test_a_hit_carries_its_own_metadata_and_how_it_was_found(engine: SearchEngine) -> None:
    (found,) = retrieve(engine, "whale", 1)
    (hit,) = engine.search("whale", 1).hits
    assert (found.doc_id, found.text, found.score) == ("whale", DOCUMENTS[0].text, hit.score)
    assert found.metadata == {
        "title": "Moby",
        "year": 1851,
        "score": "mine",
        "dupmae": {
            "rank": 1,
            "score": hit.score,
            "dense": hit.dense,
            "sparse": hit.sparse,
            "proven": True,
        },
    }
    (storm,) = retrieve(engine, "storm", 1)
    assert storm.metadata["title"] == "its own"


def test_langchain(engine: SearchEngine) -> None:
    pytest.importorskip("langchain_core", reason="the extra [langchain] is not installed")
    from dupmae.integrations.langchain import DupMAERetriever

    retriever = DupMAERetriever(engine=engine, k=2, where="year exists")
    documents = retriever.invoke("storm sea")
    wanted = expected(engine, "storm sea", 2)
    assert [(found.id, found.page_content, found.metadata) for found in documents] == [
        (doc_id, text, metadata) for doc_id, text, _, metadata in wanted
    ]
    assert asyncio.run(retriever.ainvoke("storm sea")) == documents
    chain = retriever | (lambda found: [document.id for document in found])
    assert chain.batch(["storm", "whale"]) == [
        [row[0] for row in expected(engine, query, 2)] for query in ("storm", "whale")
    ]
    with pytest.raises(UsageError, match="character 6"):
        DupMAERetriever(engine=engine, where="year ~ 1").invoke("storm")


def test_llama_index(engine: SearchEngine) -> None:
    pytest.importorskip("llama_index.core", reason="the extra [llama-index] is not installed")
    from llama_index.core.schema import MetadataMode

    from dupmae.integrations.llama_index import DupMAERetriever

    retriever = DupMAERetriever(engine, k=2, where="year = 1900")
    nodes = retriever.retrieve("storm sea")
    assert [(node.node_id, node.text, node.score, node.metadata) for node in nodes] == expected(
        engine, "storm sea", 2, "year = 1900"
    )
    assert [node.node_id for node in asyncio.run(retriever.aretrieve("storm sea"))] == [
        node.node_id for node in nodes
    ]
    shown = nodes[0].node.get_content(MetadataMode.LLM)
    assert "year: 1900" in shown
    assert "dupmae" not in shown


def test_haystack(engine: SearchEngine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    haystack = pytest.importorskip("haystack", reason="the extra [haystack] is not installed")
    from dupmae.integrations.haystack import DupMAERetriever

    monkeypatch.setattr(FakeEncoder, "heads", HeadSettings(), raising=False)
    monkeypatch.setattr("dupmae.encoder.Encoder.load", lambda *_: FakeEncoder())
    pipeline = haystack.Pipeline()
    pipeline.add_component("search", DupMAERetriever(str(folder), k=2))
    again = haystack.Pipeline.from_dict(
        pipeline.to_dict(), allowed_modules=["dupmae.integrations.haystack"]
    )
    for asked, k, where in (({}, 2, None), ({"k": 1, "where": "year = 1851"}, 1, "year = 1851")):
        given = {"search": {"query": "storm sea", **asked}}
        documents = pipeline.run(given)["search"]["documents"]
        assert [
            (document.id, document.content, document.score, document.meta) for document in documents
        ] == expected(engine, "storm sea", k, where)
        assert again.run(given)["search"]["documents"] == documents
