"""An engine answers from what matches a filter alone, and deletes that alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder

from dupmae.engine import (
    Compare,
    Key,
    SearchEngine,
    build_index,
    delete_documents,
    delete_matching,
    explain,
    parse_filter,
    read_manifest,
    verify_index,
)
from dupmae.errors import DataError, IndexMissingError, UsageError
from dupmae.results import Hits, SearchResult
from dupmae.types import Document

WORDS = ["whale", "ship", "sea", "captain", "harpoon", "storm"]
DOCUMENTS = [
    Document(
        f"d{n}",
        " ".join(WORDS[(n * step + n // 31) % 6] for step in (1, 2, 3)),
        WORDS[n % 2],
        {"n": n, "third": n % 3, "tags": [WORDS[n % 6], n % 5], "half": {"odd": n % 2 == 1}},
    )
    for n in range(400)
]
QUERIES = ["whale sea", "captain", "ship storm harpoon", "unheard", ""]
FILTERS = [
    "third = 1",
    'tags = "whale" and not half.odd = true',
    "n >= 0",
    "n < 70 or n > 390",
    "n = 211",
    'id = "d211"',
    "n = 1000",
    "n in (0, 399)",
    "n >= 300",
    'title = "ship" and n != 33',
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index of several segments, of which two have deletes."""
    folder = tmp_path_factory.mktemp("filters") / "my.index"
    encoder = FakeEncoder(corpus_idf=True)
    for start, end in ((0, 150), (150, 320), (320, 380), (380, 400)):
        build_index(DOCUMENTS[start:end], encoder, folder)
    delete_documents(folder, [f"d{n}" for n in range(0, 180, 7)])
    assert len(read_manifest(folder).segments) > 1
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path):
    with SearchEngine.open(folder, FakeEncoder(corpus_idf=True)) as engine:
        yield engine


def documents(engine: SearchEngine) -> dict[str, Document]:
    return {d.doc_id: d for d in engine.documents.get(np.arange(len(engine)))}


@pytest.mark.parametrize(
    "weights",
    [
        (1.0, 1.0),
        pytest.param((0.0, 1.0), marks=pytest.mark.slow),
        (1.0, 0.0),
        pytest.param((0.3, 2.0), marks=pytest.mark.slow),
    ],
)
def test_answers_are_the_full_ranking_without_what_does_not_match(
    engine: SearchEngine, weights: tuple[float, float]
) -> None:
    chosen = dict(zip(("dense_weight", "sparse_weight"), weights, strict=True))
    held = documents(engine)
    everything = engine.search_batch(QUERIES, len(engine), **chosen)
    for where in FILTERS:
        matches = parse_filter(where).matches
        struck_out = [
            tuple(hit for hit in full.hits if matches(held[hit.doc_id])) for full in everything
        ]
        assert engine.count(where) == len(struck_out[0])
        for k in (1, 5, 1000):
            found = engine.search_batch(QUERIES, k, where=where, **chosen)
            assert [result.hits for result in found] == [hits[:k] for hits in struck_out]
            assert all(result.proven for result in found)


def test_the_engine_reads_lists_only_as_deep_as_the_proof_needs(engine: SearchEngine) -> None:
    # A filter is pushed into both stores: without that a rare match would take the whole ranking.
    found = engine.search("whale sea", 5, where="third = 1")
    assert found.depth < engine.count("third = 1")


def test_with_feedback_the_query_learns_from_what_matches(engine: SearchEngine) -> None:
    where = parse_filter('tags = "storm"')
    found = engine.search("whale sea", 20, where=where, feedback=0.5)
    assert found.proven
    for hit in found.hits:
        taken = explain(engine, "whale sea", hit.doc_id, where=where, feedback=0.5)
        assert (taken.score, found.hits[taken.rank - 1]) == (hit.score, hit)
    unfiltered = engine.search("whale sea", len(engine), feedback=0.5).hits
    scores = {hit.doc_id: hit.score for hit in unfiltered}
    assert any(scores[hit.doc_id] != hit.score for hit in found.hits)


def test_a_filter_that_matches_nothing_has_an_empty_proven_answer(engine: SearchEngine) -> None:
    for feedback in (0.0, 0.5):
        result = engine.search("whale", where="nothing exists", feedback=feedback)
        assert result == SearchResult("whale", Hits(), True, -np.inf, 0)


def test_explain_ranks_among_what_matches_and_refuses_what_does_not(engine: SearchEngine) -> None:
    hits = engine.search("whale sea", 400, where="third = 2").hits
    for place in (0, 10, len(hits) - 1):
        taken = explain(engine, "whale sea", hits[place].doc_id, where="third = 2")
        assert (taken.rank, taken.score) == (place + 1, hits[place].score)
    with pytest.raises(DataError, match="'d1' does not match the filter third = 2"):
        explain(engine, "whale sea", "d1", where="third = 2")
    with pytest.raises(DataError, match="no document of the index has the id 'd0'"):
        explain(engine, "whale sea", "d0", where="third = 0")


def test_a_filter_used_again_is_not_read_again(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = engine.search("whale", where="third = 0 and n > 3")
    monkeypatch.setattr("dupmae.engine.view.matching", None)
    assert engine.search("whale", where="third = 0 and n > 3") == first


# ---- delete ----------------------------------------------------------------------------------


def test_deleting_by_a_filter_leaves_what_does_not_match(tmp_path: Path) -> None:
    folder = tmp_path / "my.index"
    for start in (0, 40):
        build_index(DOCUMENTS[start : start + 40], FakeEncoder(), folder)
    delete_documents(folder, ["d1", "d2"])
    assert delete_matching(folder, "third = 1 or n < 4") == 28
    left = [d.doc_id for d in DOCUMENTS[4:80] if d.metadata["third"] != 1]
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        assert engine.documents.ids(np.arange(len(engine))) == left
    before = read_manifest(folder)
    assert delete_matching(folder, Compare(Key(("third",)), "=", 1)) == 0
    assert read_manifest(folder) == before
    assert verify_index(folder, deep=True) == []
    assert delete_matching(folder, "n exists") == len(left)
    assert read_manifest(folder).documents == 0


def test_a_wrong_filter_or_a_missing_index_deletes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "my.index"
    with pytest.raises(IndexMissingError):
        delete_matching(folder, "n exists")
    build_index(DOCUMENTS[:3], FakeEncoder(), folder)
    with pytest.raises(UsageError, match="character 3"):
        delete_matching(folder, "n ! 3")
    assert read_manifest(folder).documents == 3


# ---- types survive the disk ------------------------------------------------------------------


def test_types_are_those_of_the_corpus_line(tmp_path: Path) -> None:
    metadata = {"big": 2**70, "nul": "a\u0000b", "deep": json.loads("[" * 500 + "1" + "]" * 500)}
    build_index([Document("a", "x", "", metadata)], FakeEncoder(), tmp_path / "i")
    with SearchEngine.open(tmp_path / "i", FakeEncoder()) as engine:
        assert engine.count(f"big = {2**70}") == 1
        assert engine.count(f"big = {2**70 + 1}") == 0
        assert engine.count('nul = "a\\u0000b"') == 1
        assert engine.count('nul = "a"') == 0
        assert engine.count("deep = 1") == 1
