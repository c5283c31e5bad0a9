from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from examples import examples
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import WORDS as TINY_WORDS
from tiny_model import tiny_model, tiny_tokenizer

from dupmae.encoder import Encoder
from dupmae.engine import SearchEngine, build_index, read_manifest
from dupmae.engine.manifest import write_manifest
from dupmae.errors import IndexMissingError, SealError, UsageError
from dupmae.indexes.forward import ForwardStore
from dupmae.results import SearchResult
from dupmae.torch_encoder import TorchEncoder
from dupmae.types import CorpusStatistics, Document

WORDS = ["whale", "ship", "sea", "captain", "harpoon", "storm"]
DOCUMENTS = [
    # Words repeat in a pattern without end, so that many texts, and so many scores, are equal.
    Document(f"d{i}", " ".join(WORDS[(i * step) % 6] for step in (1, 2, 3)), WORDS[i % 2])
    for i in range(150)
] + [Document("empty", ""), Document("odd", "🐋 Ünïcode naïve"), Document("long", "sea " * 5000)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "my.index"
    build_index(DOCUMENTS, FakeEncoder(), folder)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path):
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        yield engine


def brute_force(query: str, dense_weight: float, sparse_weight: float) -> list[tuple[float, str]]:
    """Score every document from the encoder alone and order by score, then by place."""
    encoder = FakeEncoder()
    asked = encoder.encode_queries([query])
    stored = encoder.encode_documents([document.content for document in DOCUMENTS])
    terms, weights = asked.sparse.row(0)
    in_query = dict(zip(terms.tolist(), weights.tolist(), strict=True))
    rows = []
    for place, (document, vector) in enumerate(zip(DOCUMENTS, stored.dense, strict=True)):
        dense = math.fsum(vector.astype(np.float64) * asked.dense[0].astype(np.float64))
        row = zip(*(part.tolist() for part in stored.sparse.row(place)), strict=True)
        sparse = math.fsum(weight * in_query.get(term, 0.0) for term, weight in row)
        score = dense_weight * dense + sparse_weight * sparse
        rows.append((-round(score, 12), place, document.doc_id))
    return [(-score, doc_id) for score, _, doc_id in sorted(rows)]


def as_rows(result: SearchResult) -> list[tuple[float, str]]:
    return [(round(hit.score, 12), hit.doc_id) for hit in result.hits]


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.sampled_from([*WORDS, "🐋", "unheard"]), max_size=5),
    st.integers(1, 200),
    st.sampled_from([0.0, 0.5, 1.0, 20.0]),
    st.sampled_from([0.25, 1.0, 3.0]),
)
def test_answers_equal_brute_force_and_are_proven(
    engine: SearchEngine, words: list[str], k: int, dense_weight: float, sparse_weight: float
) -> None:
    query = " ".join(words)
    result = engine.search(query, k, dense_weight=dense_weight, sparse_weight=sparse_weight)
    assert result.proven
    assert as_rows(result) == brute_force(query, dense_weight, sparse_weight)[:k]


def test_dense_alone_equals_brute_force(engine: SearchEngine) -> None:
    result = engine.search("whale storm", 20, sparse_weight=0.0)
    assert as_rows(result) == brute_force("whale storm", 1.0, 0.0)[:20]


@pytest.mark.parametrize("k", [153, 154, 10**9])
def test_a_k_of_all_or_more_gives_every_document_once(engine: SearchEngine, k: int) -> None:
    result = engine.search("whale", k)
    assert len(result.hits) == len(engine) == 153
    assert {hit.doc_id for hit in result.hits} == {document.doc_id for document in DOCUMENTS}
    assert (result.proven, result.bound, result.depth) == (True, -math.inf, 153)


def test_a_shorter_answer_is_the_start_of_a_longer_one(engine: SearchEngine) -> None:
    everything = engine.search("captain of the ship", 153).hits
    for k in (1, 10, 63, 64, 65, 152):
        assert engine.search("captain of the ship", k).hits == everything[:k]


@pytest.mark.parametrize("feedback", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_pages_join_to_the_one_full_ranking(engine: SearchEngine, feedback: float) -> None:
    query = "captain of the ship"
    everything = engine.search(query, 153, feedback=feedback).hits
    for k in (1, 10, 64):
        pages = [
            engine.search_batch([query, "sea"], k, offset=offset, feedback=feedback)[0]
            for offset in range(0, 153, k)
        ]
        assert all(page.proven and len(page.hits) <= k for page in pages)
        assert tuple(hit for page in pages for hit in page.hits) == everything
    for offset in (153, 10**9):
        assert engine.search(query, 5, offset=offset, feedback=feedback).hits == ()


def test_an_offset_below_zero_is_a_usage_error(engine: SearchEngine) -> None:
    with pytest.raises(UsageError, match="found -1"):
        engine.search("whale", offset=-1)


def test_queries_are_encoded_for_the_documents_of_this_index(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[CorpusStatistics | None] = []

    def encode(texts: list[str], corpus: CorpusStatistics | None = None):
        seen.append(corpus)
        return FakeEncoder().encode_queries(texts)

    monkeypatch.setattr(engine.encoder, "encode_queries", encode)
    engine.search("whale")
    (statistics,) = seen
    assert statistics is not None
    assert statistics.documents == 153
    held = np.zeros(FakeEncoder().vocabulary_size, np.int64)
    for document in DOCUMENTS:
        held[list({FakeEncoder().term(word) for word in document.content.lower().split()})] += 1
    assert held.max() > 50
    assert np.array_equal(statistics.frequency, held)


def test_an_encoder_with_corpus_idf_weighs_queries_by_the_index(tmp_path: Path) -> None:
    # Every document holds the first word, one alone the second.
    common, rare = TINY_WORDS[:2]
    texts = [" ".join([common, *TINY_WORDS[n : n + 4]]) for n in range(2, 40)]
    documents = [Document(f"d{n}", text) for n, text in enumerate([*texts, f"{rare} {common}"])]
    query = f"{common} {rare}"
    TorchEncoder(tiny_model(corpus_idf=2.0, expansion=0.0), tiny_tokenizer(), "idf").save(
        tmp_path / "m"
    )
    scores = {}
    for power in (0.0, 2.0):
        encoder = Encoder.load(tmp_path / "m", settings={"corpus_idf": power})
        index = tmp_path / f"{power}.index"
        build_index(documents, encoder, index)
        with SearchEngine.open(index, encoder) as engine:
            result = engine.search(query, len(documents))
            frequency = engine.view.corpus.frequency
            encoded = encoder.encode_queries([query], CorpusStatistics(39, frequency))
            parts = engine.view.score(encoded.dense[0], *encoded.sparse.row(0), np.arange(39))
        scores[power] = {hit.doc_id: hit.sparse for hit in result.hits}
        assert result.proven
        assert list(scores[power].values()) != [0.0] * 39
        assert scores[power] == {f"d{n}": score for n, score in enumerate(parts[1].tolist())}
    assert scores[0.0] != scores[2.0]


def test_a_query_is_answered_the_same_alone_and_in_a_batch(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [*WORDS, "", "unheard", "whale sea"] * 3
    alone = [engine.search(query, 5) for query in queries]
    assert engine.search_batch(queries, 5) == alone
    monkeypatch.setattr("dupmae.engine.search.QUERY_BLOCK", 4)
    assert engine.search_batch(queries, 5) == alone
    assert [result.query for result in alone] == queries
    assert engine.search_batch([], 5) == []


def test_scores_are_the_weighted_sum_of_their_parts(engine: SearchEngine) -> None:
    for hit in engine.search("sea storm", 30, dense_weight=0.3, sparse_weight=1.7).hits:
        assert hit.score == 0.3 * hit.dense + 1.7 * hit.sparse


def test_an_engine_has_weights_of_its_own(folder: Path, engine: SearchEngine) -> None:
    with SearchEngine.open(folder, FakeEncoder(), dense_weight=0.3, sparse_weight=0) as other:
        own = other.search("sea", 5)
        assert own == engine.search("sea", 5, dense_weight=0.3, sparse_weight=0.0)
        assert other.search("sea", 5, dense_weight=1, sparse_weight=1) == engine.search("sea", 5)


@pytest.mark.parametrize("query", ["", " \n", "🐋", "the", "word " * 10_000])
def test_any_text_is_a_query(engine: SearchEngine, query: str) -> None:
    assert len(engine.search(query, 3).hits) == 3


@pytest.mark.parametrize("k", [0, -5])
def test_a_k_below_one_is_a_usage_error_even_without_queries(engine: SearchEngine, k: int) -> None:
    with pytest.raises(UsageError, match=f"found {k}"):
        engine.search("whale", k)
    with pytest.raises(UsageError, match=f"found {k}"):
        engine.search_batch([], k)


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_weight_that_is_no_weight_is_a_usage_error(
    folder: Path, engine: SearchEngine, weight: float
) -> None:
    with pytest.raises(UsageError, match="sparse weight"):
        engine.search("whale", sparse_weight=weight)
    with pytest.raises(UsageError, match="dense weight"):
        SearchEngine.open(folder, FakeEncoder(), dense_weight=weight)


def test_another_encoder_is_refused_by_name_and_seal(folder: Path) -> None:
    other = FakeEncoder("other")
    with pytest.raises(SealError) as caught:
        SearchEngine.open(folder, other)
    message = str(caught.value)
    for part in ("fake", FakeEncoder().seal[:12], "other", other.seal[:12], "--replace"):
        assert part in message
    assert (caught.value.exit_code, "\n" in message) == (4, False)


def test_a_missing_index_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(IndexMissingError, match="dupmae index"):
        SearchEngine.open(tmp_path / "absent", FakeEncoder())


def test_every_missing_or_shortened_file_is_found_when_opening(tmp_path: Path) -> None:
    folder = tmp_path / "my.index"
    build_index(DOCUMENTS[:3], FakeEncoder(), folder)
    for file in read_manifest(folder).files:
        path = folder / file.path
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(IndexMissingError, match="is missing"):
            SearchEngine.open(folder, FakeEncoder())
        path.write_bytes(content[:-1])
        with pytest.raises(IndexMissingError, match="bytes and has"):
            SearchEngine.open(folder, FakeEncoder())
        path.write_bytes(content)
    SearchEngine.open(folder, FakeEncoder()).close()


def test_a_manifest_that_miscounts_is_damage(tmp_path: Path) -> None:
    folder = tmp_path / "my.index"
    manifest = build_index(DOCUMENTS[:3], FakeEncoder(), folder)
    segments = (replace(manifest.segments[0], documents=4),)
    write_manifest(folder, replace(manifest, segments=segments))
    with pytest.raises(IndexMissingError, match=r"counts 4 documents.*\(3, 3, 3, 3\)"):
        SearchEngine.open(folder, FakeEncoder())


def test_an_index_replaced_while_it_is_being_opened_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my.index"
    build_index(DOCUMENTS[:3], FakeEncoder(), folder)

    def open_and_replace(*args):
        monkeypatch.setattr("dupmae.engine.opened.ForwardStore", ForwardStore)
        build_index(DOCUMENTS[:5], FakeEncoder(), folder, replace=True)
        return ForwardStore.open(*args)

    monkeypatch.setattr("dupmae.engine.opened.ForwardStore", Mock(open=open_and_replace))
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        assert (len(engine), engine.manifest.generation) == (5, 2)


def test_texts_are_at_hand(engine: SearchEngine) -> None:
    hit = engine.search("🐋", 1).hits[0]
    assert engine.documents.get([engine.documents.ordinal(hit.doc_id)]) == [DOCUMENTS[151]]
