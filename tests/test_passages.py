"""An index of split documents: every answer is the brute-force maximum over their passages."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder, Forward, NoisyDense, NoisySparse, WordReader
from forged import approve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lucene import skip_without_lucene

from dupmae.engine import (
    Chunk,
    SearchEngine,
    Weights,
    build_index,
    compact,
    delete_documents,
    explain,
    export_index,
    read_manifest,
    restore_index,
    snapshot_index,
    verify_index,
)
from dupmae.engine.chunking import read_passages
from dupmae.engine.fusion import Stores, fuse_batch
from dupmae.engine.vectors import VectorFiles
from dupmae.errors import DataError, UsageError
from dupmae.indexes.scores import dense_scores, sparse_scores
from dupmae.results import Hit
from dupmae.types import CorpusStatistics, Document, Encoded, Passage, SparseVectors

LENGTH = 12
CHUNK = Chunk(4, 1)
WORDS = ["whale", "ship", "sea.", "captain", "storm.", "harpoon"]
QUERIES = ["whale sea.", "captain", "ship storm. harpoon", "unheard", ""]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "my.index"


def encoder() -> WordReader:
    return WordReader(LENGTH, corpus_idf=True)


def document(number: int, version: int = 0) -> Document:
    """Return a text of words in a pattern that repeats, so that many scores are equal."""
    words = [WORDS[(number * step + version) % 6] for step in range((number * 7 + version) % 17)]
    title = WORDS[version % 2] if number % 3 else ""
    return Document(f"d{number}", " ".join(words), title, {"odd": number % 2 == 1, "n": number})


def build(folder: Path, documents: Sequence[Document], chunk: Chunk | None = CHUNK, **options):
    return build_index(documents, encoder(), folder, chunk=chunk, **options)


@dataclass(frozen=True)
class Brute:
    """All passages of some documents, encoded, and what scores them one by one."""

    documents: Sequence[Document]
    chunk: Chunk

    def answer(self, query: str, weights: Weights, among: Sequence[int] | None = None) -> list[Hit]:
        """Rank documents by the maximum over their passages, first of all and first in each."""
        reader = encoder()
        ids, _, spans = read_passages(reader, self.chunk, self.documents)
        passages = reader.encode_tokenised(ids)
        terms, counts = np.unique(passages.sparse.terms, return_counts=True)
        frequency = np.zeros(reader.vocabulary_size, dtype=np.int64)
        frequency[terms] = counts
        asked = reader.encode_queries([query], CorpusStatistics(len(ids), frequency))
        rows = np.arange(len(ids))
        dense = dense_scores(passages.dense, asked.dense[0], rows)
        sparse = sparse_scores(passages.sparse, *asked.sparse.row(0), rows)
        scores = weights.combine(dense, sparse)
        hits, row = [], 0
        for found, own in zip(self.documents, spans, strict=True):
            best = max(range(row, row + len(own)), key=lambda place: (scores[place], -place))
            passage = Passage(best - row + 1, *own[best - row].tolist())
            parts = float(scores[best]), float(dense[best]), float(sparse[best])
            hits.append(Hit(found.doc_id, *parts, passage))
            row += len(own)
        chosen = [hits[place] for place in among] if among is not None else hits
        return sorted(chosen, key=lambda hit: -hit.score)  # stable: ties by document order


def assert_answers(folder: Path, documents: Sequence[Document], chunk: Chunk = CHUNK) -> None:
    brute = Brute(documents, chunk)
    odd = [place for place, found in enumerate(documents) if found.metadata["odd"]]
    with SearchEngine.open(folder, encoder()) as engine:
        assert len(engine) == engine.count() == len(documents)
        assert engine.documents.get(range(len(engine))) == list(documents)
        assert engine.count("odd = true") == len(odd)
        counted = engine.facets("n")["n"] if documents else ()
        assert sorted(value.value for value in counted) == sorted(
            found.metadata["n"] for found in documents
        )
        for query in QUERIES if documents else ():
            for weights in (Weights(), Weights(1.0, 0.0), Weights(0.0, 1.0)):
                options = {"dense_weight": weights.dense, "sparse_weight": weights.sparse}
                whole = brute.answer(query, weights)
                for k, offset in ((1, 0), (3, 2), (1000, 0)):
                    result = engine.search(query, k, offset=offset, **options)
                    assert result.proven
                    assert list(result.hits) == whole[offset : offset + k]
                result = engine.search(query, 4, where="odd = true", **options)
                assert result.proven
                assert list(result.hits) == brute.answer(query, weights, odd)[:4]


NUMBERS = st.sets(st.integers(0, 20), min_size=1, max_size=10)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), NUMBERS, st.integers(0, 3)),
        st.tuples(st.just("delete"), NUMBERS, st.just(0)),
        st.tuples(st.just("compact"), st.just({0}), st.just(0)),
    ),
    max_size=4,
)
CHUNKS = st.integers(1, 6).flatmap(
    lambda tokens: st.builds(Chunk, st.just(tokens), st.integers(0, tokens - 1))
)


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS, CHUNKS)
def test_any_long_history_answers_as_brute_force(tmp_path_factory, steps, chunk) -> None:
    run_updates(tmp_path_factory.mktemp("any") / "my.index", steps, chunk)


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS, CHUNKS)
def test_any_history_answers_as_brute_force(tmp_path_factory, steps, chunk) -> None:
    run_updates(tmp_path_factory.mktemp("any") / "my.index", steps, chunk)


def run_updates(
    folder: Path, steps: Sequence[tuple[str, set[int], int]], chunk: Chunk = CHUNK
) -> None:
    documents = [document(number) for number in range(0, 20, 2)]
    build(folder, documents, chunk, block_size=4)
    for kind, numbers, version in steps:
        ids = {f"d{number}" for number in numbers}
        if kind == "compact":
            compact(folder)
            continue
        documents = [found for found in documents if found.doc_id not in ids]
        if kind == "add":
            new = [document(number, version) for number in sorted(numbers)]
            build(folder, new, None, block_size=3)
            documents += new
        else:
            delete_documents(folder, ids, missing_ok=True)
    assert_answers(folder, documents, chunk)
    assert verify_index(folder, deep=True) == []
    _, truncated, spans = read_passages(encoder(), chunk, documents)
    manifest = read_manifest(folder)
    assert manifest.passages == sum(map(len, spans))
    assert manifest.truncated == sum(truncated)
    assert manifest.chunk == chunk


# ---- the proof, with stores as bad as they may be ---------------------------------------------


@st.composite
def collections(draw):
    """Vectors of few distinct values, whose vectors they are, and stores that list them badly."""
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=12))
    owners = np.repeat(np.arange(len(counts)), counts)
    total = len(owners)
    weight = st.sampled_from([0.5, 1.0, 2.0])
    rows = [draw(st.dictionaries(st.integers(0, 3), weight, max_size=3)) for _ in range(total + 1)]
    sparse = SparseVectors.from_rows([(sorted(r), [r[t] for t in sorted(r)]) for r in rows])
    dense = np.array([[draw(st.integers(-3, 3))] for _ in range(total + 1)], dtype=np.float32)
    forward = Forward(dense[:-1], sparse.rows(0, total))
    noise = np.array([draw(st.sampled_from([0.0, 0.25, 0.5])) for _ in range(total)])
    order = np.array(draw(st.permutations(range(total))))
    stores = Stores(
        forward, NoisyDense(forward, -noise, order), NoisySparse(forward, noise, order), owners
    )
    return Encoded(dense[-1:], sparse.rows(total, total + 1)), stores


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(collections(), st.integers(1, 14), st.integers(1, 6), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_answer_is_proven_whatever_the_lists_leave_out(collection, k, depth, dense) -> None:
    query, stores = collection
    weights = Weights(dense, 1.0)
    (fused,) = fuse_batch(query, stores, k, weights, first_depth=depth)
    parts = stores.forward.score(
        query.dense[0], *query.sparse.row(0), np.arange(len(stores.forward))
    )
    scores = weights.combine(*parts).tolist()
    best: dict[int, int] = {}
    for row, owner in enumerate(stores.owners.tolist()):
        if owner not in best or scores[row] > scores[best[owner]]:
            best[owner] = row
    expected = sorted(best, key=lambda owner: -scores[best[owner]])[:k]
    assert fused.proven
    assert fused.ranking.ordinals.tolist() == expected
    assert fused.best.ordinals.tolist() == [best[owner] for owner in expected]
    assert fused.ranking.scores.tolist() == [scores[best[owner]] for owner in expected]


# ---- one thing at a time ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return [document(number) for number in range(20)]


@pytest.fixture
def built(folder: Path, documents: list[Document]) -> Path:
    build(folder, documents, block_size=6)
    return folder


def test_documents_of_one_passage_score_as_whole_ones(folder: Path, tmp_path: Path) -> None:
    short = [document(number) for number in range(20) if len(document(number).text.split()) < 5]
    build(folder, short)
    build(tmp_path / "whole", short, None)
    with (
        SearchEngine.open(folder, encoder()) as engine,
        SearchEngine.open(tmp_path / "whole", encoder()) as whole,
    ):
        for query in QUERIES:
            split, single = (e.search(query, 9, feedback=0.4) for e in (engine, whole))
            assert [hit._replace(passage=None) for hit in split.hits] == list(single.hits)
            assert all(hit.passage.number == 1 for hit in split.hits)


def test_lucene_gives_the_same_answers(folder: Path, documents: list[Document]) -> None:
    skip_without_lucene()
    build(folder, documents[:15], sparse="lucene")
    build(folder, documents[12:], None)
    assert_answers(folder, documents)


def test_explain_takes_the_best_passage_apart(built: Path, documents: list[Document]) -> None:
    brute = Brute(documents, CHUNK)
    with SearchEngine.open(built, encoder()) as engine:
        for rank, hit in enumerate(brute.answer(QUERIES[0], Weights()), start=1):
            taken = explain(engine, QUERIES[0], hit.doc_id, k=2)
            text = next(d.text for d in documents if d.doc_id == hit.doc_id)
            assert (taken.rank, taken.score, taken.passage) == (rank, hit.score, hit.passage)
            assert taken.passage_text == text[hit.passage.start : hit.passage.end]


def test_feedback_learns_from_the_best_passages(built: Path, documents: list[Document]) -> None:
    query = QUERIES[0]
    with SearchEngine.open(built, encoder()) as engine:
        moved = engine.encode([query], Weights(feedback=0.5))
        after = engine.search(query, 3, feedback=0.5)
        everything = np.arange(len(engine.view))
        parts = engine.view.score(moved.dense[0], *moved.sparse.row(0), everything)
        scores = Weights().combine(*parts)
        assert after.proven
        assert after.hits[0].score == scores.max()
        assert len({hit.doc_id for hit in after.hits}) == 3


def test_a_document_goes_with_all_its_passages(built: Path, documents: list[Document]) -> None:
    long = max(documents, key=lambda found: len(found.text))
    manifest = read_manifest(built)
    delete_documents(built, [long.doc_id])
    _, _, (spans,) = read_passages(encoder(), CHUNK, [long])
    assert len(spans) > 2
    assert read_manifest(built).passages == manifest.passages - len(spans)
    assert_answers(built, [found for found in documents if found is not long])


def test_a_build_that_is_stopped_goes_on(
    folder: Path, tmp_path: Path, documents: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> Iterator[Document]:
        yield from documents[:15]
        raise DataError("line 16")

    with pytest.raises(DataError):
        build(folder, failing(), block_size=4)
    assert json.loads((folder / "JOURNAL.jsonl").read_text().splitlines()[0])["chunk"] == {
        "tokens": 4,
        "overlap": 1,
    }
    again = encoder()
    with caplog.at_level(logging.WARNING):
        manifest = build_index(documents, again, folder, chunk=CHUNK, block_size=4)
    assert "going on after 12 documents" in caplog.text
    whole = build(tmp_path / "whole", documents, block_size=4)
    assert again.encoded_documents < manifest.passages == whole.passages
    assert_answers(folder, documents)
    for path in sorted((tmp_path / "whole/segments/000001/reading").iterdir()):
        assert (folder / "segments/000001/reading" / path.name).read_bytes() == path.read_bytes()


def test_a_build_with_another_setting_begins_anew(
    folder: Path, documents: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> Iterator[Document]:
        yield from documents[:15]
        raise DataError("line 16")

    with pytest.raises(DataError):
        build(folder, failing(), block_size=4)
    build(folder, documents, Chunk(3, 1), block_size=4)
    assert "split into passages of 4 tokens that overlap by 1; it is begun anew" in caplog.text
    assert_answers(folder, documents, Chunk(3, 1))


def test_long_documents_make_small_blocks(
    folder: Path, documents: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dupmae.engine.segment._CHARACTERS", 100)
    build(folder, documents)
    assert_answers(folder, documents)


def test_the_setting_of_an_index_stays(built: Path, tmp_path: Path) -> None:
    build(built, [document(1, 2)], None)
    build(built, [document(1, 2)], CHUNK)
    with pytest.raises(UsageError, match=r"holds passages of 4 tokens that overlap by 1, not .*2"):
        build(built, [document(1)], Chunk(4, 2))
    assert build(built, [document(1)], None, replace=True).chunk is None
    with pytest.raises(UsageError, match="holds whole documents, not passages of 4"):
        build(built, [document(1)], CHUNK)
    export_index(built, tmp_path / "one.npz")
    with (
        VectorFiles.open([tmp_path / "one.npz"], encoder()) as vectors,
        pytest.raises(UsageError, match="vectors made elsewhere are of whole documents"),
    ):
        build_index([document(1)], vectors, tmp_path / "other", chunk=CHUNK)
    with pytest.raises(UsageError, match="says where tokens lie"):
        build_index([document(1)], FakeEncoder(), tmp_path / "other", chunk=CHUNK)


def test_passages_are_not_exported_as_documents(built: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one vector a document; index the documents whole"):
        export_index(built, tmp_path / "out.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["my.index"]


def test_a_snapshot_holds_the_passages(
    built: Path, tmp_path: Path, documents: list[Document]
) -> None:
    snapshot_index(built, tmp_path / "my.tar")
    assert restore_index(tmp_path / "my.tar", tmp_path / "again").chunk == CHUNK
    assert_answers(tmp_path / "again", documents)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("spans", "the passages of document 'd"),
        ("indptr", "indptr.npy does not fit 20 documents"),
    ],
)
def test_files_that_contradict_each_other_are_found(built: Path, name: str, said: str) -> None:
    path = built / f"segments/000001/reading/{name}.npy"
    np.save(path, np.load(path)[::-1].copy())
    approve(built)
    assert said in verify_index(built, deep=True)[0]


def test_a_manifest_says_of_all_segments_or_none_that_they_are_split(built: Path) -> None:
    manifest = read_manifest(built)
    with pytest.raises(ValueError, match="split in some segments and not in others"):
        replace(manifest, chunk=None)
    with pytest.raises(ValueError, match="has 3 passages"):
        replace(manifest.segments[0], passages=3)
