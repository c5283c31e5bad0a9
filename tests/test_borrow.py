"""Borrowed terms: what documents get, how it is kept through updates, and that it is told apart."""

from __future__ import annotations

import math
from pathlib import Path

import faiss
import numpy as np
import pytest
from fakes import FakeEncoder
from random_corpus import random_documents
from updates import clean

from dupmae.engine import (
    Borrow,
    SearchEngine,
    VectorFiles,
    build_index,
    compact,
    delete_documents,
    explain,
    export_index,
    read_manifest,
    verify_index,
)
from dupmae.engine.borrow import borrow_terms
from dupmae.engine.rows import Rows
from dupmae.engine.view import View
from dupmae.errors import DupMAEError
from dupmae.indexes import ForwardStore, ForwardWriter
from dupmae.types import Document, Encoded, SparseVectors

VOCABULARY = 60
SETTINGS = Borrow(neighbours=4, terms=5, spread=0.2)
DOCUMENTS = random_documents(300)
QUERIES = [document.text[:12] for document in DOCUMENTS[:40]] + ["unheard", ""]


def encoder() -> FakeEncoder:
    return FakeEncoder(corpus_idf=True)


def random_vectors(count: int, seed: int) -> Encoded:
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(count, 6)).astype(np.float32)
    rows = []
    for _ in range(count):
        terms = np.flatnonzero(rng.random(VOCABULARY) < rng.choice([0.0, 0.1, 0.3]))
        rows.append((terms.astype(np.int32), rng.uniform(0.1, 2, len(terms)).astype(np.float32)))
    return Encoded(dense, SparseVectors.from_rows(rows))


def store(folder: Path, vectors: Encoded) -> ForwardStore:
    with ForwardWriter(folder, vectors.dense.shape[1], VOCABULARY) as writer:
        writer.add(vectors)
    return ForwardStore.open(folder)


def bags(found: list[tuple[Encoded, np.ndarray]]) -> list[dict[int, tuple[float, bool]]]:
    """Return each document's terms: weight, and whether it is borrowed."""
    return [
        {
            term: (weight, borrowed)
            for term, weight, borrowed in zip(
                terms.tolist(),
                weights.tolist(),
                marks[encoded.sparse.indptr[place] : encoded.sparse.indptr[place + 1]].tolist(),
                strict=True,
            )
        }
        for encoded, marks in found
        for place, (terms, weights) in enumerate(encoded.sparse.check())
    ]


def slow_borrow(vectors: Encoded, place: int, settings: Borrow) -> dict[int, tuple[float, bool]]:
    """Do the same for one document by the definition, in Python's own numbers."""
    dense = [row / np.linalg.norm(row) for row in vectors.dense.astype(float)]
    own = [dict(zip(t.tolist(), w.tolist(), strict=True)) for t, w in vectors.sparse]
    count = len(own)
    held = [sum(term in bag for bag in own) for term in range(VOCABULARY)]
    cosines = {other: float(dense[place] @ dense[other]) for other in range(count)}
    del cosines[place]
    near = sorted(cosines, key=lambda other: (-cosines[other], other))[: settings.neighbours]
    shares = {other: math.exp(cosines[other] / settings.spread) for other in near}
    mean = {
        term: sum(shares[n] * own[n].get(term, 0) for n in near) / sum(shares.values())
        for term in {term for n in near for term in own[n]} - own[place].keys()
    }
    idf = [math.log(1 + (count - n + 0.5) / (n + 0.5)) for n in held]
    best = sorted(mean, key=lambda term: (-mean[term] * idf[term], term))[: settings.terms]
    found = {term: (weight, False) for term, weight in own[place].items()}
    return found | ({term: (mean[term], True) for term in best} if own[place] else {})


@pytest.mark.parametrize("count", [1, 2, 4, 30])
def test_terms_are_borrowed_as_a_slow_loop_does(tmp_path: Path, count: int) -> None:
    vectors = random_vectors(count, seed=count)
    rows = Rows([(store(tmp_path / "all", vectors), np.arange(count))])
    found = bags(list(borrow_terms(rows, 0, SETTINGS)))
    assert len(found) == count
    for place, bag in enumerate(found):
        expected = slow_borrow(vectors, place, SETTINGS)
        assert {term: mark for term, (_, mark) in bag.items()} == {
            term: mark for term, (_, mark) in expected.items()
        }
        for term, (weight, _) in bag.items():
            assert weight == pytest.approx(expected[term][0], rel=1e-5)


def test_what_is_borrowed_does_not_depend_on_stores_nor_on_what_their_terms_borrowed(
    tmp_path: Path,
) -> None:
    vectors = random_vectors(40, seed=9)
    whole = store(tmp_path / "whole", vectors)
    expected = list(borrow_terms(Rows([(whole, np.arange(40))]), 0, SETTINGS))
    with ForwardWriter(tmp_path / "borrowing", 6, VOCABULARY, borrows=True) as writer:
        for block, marks in expected:
            writer.add(block, marks)
    borrowing = ForwardStore.open(tmp_path / "borrowing")
    rows = Rows(
        [(borrowing, np.arange(25)), (whole, np.arange(25, 25)), (whole, np.arange(25, 40))]
    )
    again = list(borrow_terms(rows, 0, SETTINGS))
    assert bags(again) == bags(expected)
    later = bags(list(borrow_terms(rows, 25, SETTINGS)))
    assert [bag.keys() for bag in later] == [bag.keys() for bag in bags(expected)[25:]]
    np.testing.assert_array_equal(
        borrowing.count_own(np.arange(40)), np.diff(vectors.sparse.indptr)
    )
    for place in range(40):
        np.testing.assert_array_equal(borrowing.own_row(place)[0], vectors.sparse.row(place)[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_index(DOCUMENTS, encoder(), tmp_path / "index", borrow=SETTINGS)
    return tmp_path / "index"


def stored(view: View) -> list[dict[int, tuple[float, bool]]]:
    rows = [view.stored_row(ordinal) for ordinal in range(len(view))]
    return [
        {t: (w, b) for t, w, b in zip(*(each.tolist() for each in row), strict=True)}
        for row in rows
    ]


def answers(folder: Path) -> list[list[tuple[str, float]]]:
    with SearchEngine.open(folder, encoder(), feedback=0.3) as engine:
        results = engine.search_batch(QUERIES, 20)
        assert all(result.proven for result in results)
        return [[(hit.doc_id, hit.score) for hit in result.hits] for result in results]


def test_an_index_of_borrowed_terms_answers_with_the_exact_best_of_what_is_stored(
    folder: Path, tmp_path: Path
) -> None:
    assert read_manifest(folder).borrow == SETTINGS
    assert clean(folder)
    assert verify_index(folder, deep=True) == []
    with SearchEngine.open(folder, encoder()) as engine:
        rows = stored(engine.view)
        for query, result in zip(QUERIES, engine.search_batch(QUERIES, 300), strict=True):
            encoded = engine.encode([query], engine.weights)
            terms = dict(zip(*(each.tolist() for each in encoded.sparse.row(0)), strict=True))
            dense = engine.view.dense_rows(np.arange(len(rows))) @ encoded.dense[0]
            truth = [
                float(dense[n]) + sum(w * terms.get(t, 0) for t, (w, _) in row.items())
                for n, row in enumerate(rows)
            ]
            best = sorted(range(300), key=lambda n: (-truth[n], n))[:20]
            assert [hit.score for hit in result.hits[:20]] == pytest.approx(
                [truth[n] for n in best], rel=1e-5
            )
    build_index(DOCUMENTS, encoder(), tmp_path / "plain")
    with SearchEngine.open(tmp_path / "plain", encoder()) as engine:
        plain = stored(engine.view)
    for row, own in zip(rows, plain, strict=True):
        assert {t: pair for t, pair in row.items() if not pair[1]} == own
        assert 0 < len(row) - len(own) <= SETTINGS.terms
    assert answers(folder) != answers(tmp_path / "plain")


def test_documents_that_are_added_look_at_those_before_which_stay_as_they_are(folder: Path) -> None:
    with SearchEngine.open(folder, encoder()) as engine:
        before = stored(engine.view)
    new = [Document("new", DOCUMENTS[7].text + " w1 w250"), Document("d3", "w5 w6 w299")]
    build_index(new, encoder(), folder)
    assert read_manifest(folder).borrow == SETTINGS
    assert verify_index(folder, deep=True) == []
    with SearchEngine.open(folder, encoder()) as engine:
        after = stored(engine.view)
    assert after[:-2] == before[:3] + before[4:]  # d3 is now the last
    assert all(any(borrowed for _, borrowed in row.values()) for row in after[-2:])


def test_compacting_writes_nothing_unless_who_lent_terms_may_be_gone(folder: Path) -> None:
    built = read_manifest(folder)
    assert compact(folder) == built
    build_index(DOCUMENTS[:3], encoder(), folder)
    compacted = compact(folder)
    assert compacted.generation > built.generation
    assert compact(folder) == compacted
    build_index(DOCUMENTS[3:5], encoder(), folder)  # a segment of their own
    delete_documents(folder, [document.doc_id for document in (*DOCUMENTS[:3], *DOCUMENTS[5:])])
    (left,) = read_manifest(folder).segments
    assert left.deleted == 0
    again = compact(folder)
    assert again.segments[0].name != left.name
    assert compact(folder) == again


def test_compacted_it_is_an_index_of_just_these_documents(folder: Path, tmp_path: Path) -> None:
    new = random_documents(380)[300:]
    build_index(new, encoder(), folder)
    delete_documents(folder, ["d1", "d9", "d310"])
    left = [d for d in [*DOCUMENTS, *new] if d.doc_id not in ("d1", "d9", "d310")]
    build_index(left, encoder(), tmp_path / "fresh", borrow=SETTINGS)
    assert answers(folder) != answers(tmp_path / "fresh")
    compact(folder)
    assert answers(folder) == answers(tmp_path / "fresh")
    assert clean(folder)


@pytest.mark.parametrize("step", ["_add", "ForwardWriter.close"])
def test_a_build_that_is_stopped_while_documents_borrow_goes_on_from_there(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    other, new = tmp_path / "other", random_documents(330)[290:]
    build_index(DOCUMENTS, encoder(), other, borrow=SETTINGS)
    before = answers(other)
    with monkeypatch.context() as patch:
        patch.setattr(f"dupmae.engine.lending.{step}", full)
        message = "unchanged; the same command goes on after 40 documents"
        with pytest.raises(DupMAEError, match=message):
            build_index(new, encoder(), other)
    assert answers(other) == before
    again = encoder()
    build_index(new, again, other)
    assert again.encoded_documents == 0
    build_index(new, encoder(), folder)
    assert answers(other) == answers(folder)
    assert clean(other)


@pytest.mark.parametrize("doc_id", ["old", "other"])
def test_a_replaced_document_lends_nothing_to_the_one_that_takes_its_place(
    folder: Path, doc_id: str
) -> None:
    (zebra,) = encoder().encode_documents(["zebra"]).sparse.terms.tolist()
    build_index([Document("old", "w5 w6 w7 zebra")], encoder(), folder)
    build_index([Document(doc_id, "w5 w6 w7")], encoder(), folder)
    with SearchEngine.open(folder, encoder()) as engine:
        row = stored(engine.view)[-1]
    assert (zebra in row) == (doc_id == "other")


def test_an_export_holds_own_terms_alone_and_makes_the_same_index_again(
    folder: Path, tmp_path: Path
) -> None:
    from dupmae.engine import read_corpus

    export_index(folder, tmp_path / "out.safetensors")
    with VectorFiles.open([tmp_path / "out.safetensors"]) as vectors:
        documents = read_corpus(tmp_path / "out.jsonl")
        build_index(documents, vectors, tmp_path / "again", borrow=SETTINGS)
    assert answers(tmp_path / "again") == answers(folder)


def test_an_explanation_tells_borrowed_terms_from_own_ones(folder: Path) -> None:
    with SearchEngine.open(folder, encoder()) as engine:
        rows, seen = stored(engine.view), set()
        for query in QUERIES[:10]:
            for hit in engine.search(query, 30).hits:
                explained = explain(engine, query, hit.doc_id)
                assert explained.score == hit.score
                row = rows[engine.view.documents.ordinal(hit.doc_id)]
                for term in explained.terms:
                    assert (term.document_weight, term.borrowed) == row[int(term.text[4:])]
                    seen.add(term.borrowed)
                assert not any(term.borrowed for term in explained.missing)
    assert seen == {True, False}


def test_what_is_borrowed_does_not_depend_on_threads(tmp_path: Path) -> None:
    sparse = random_vectors(3000, seed=4).sparse
    dense = np.random.default_rng(5).normal(size=(3000, 384)).astype(np.float32)
    vectors = Encoded(dense, sparse)
    rows = Rows([(store(tmp_path / "all", vectors), np.arange(3000))])
    threads = faiss.omp_get_max_threads()
    found = []
    try:
        for count in (1, 2, 3):
            faiss.omp_set_num_threads(count)
            found.append(bags(list(borrow_terms(rows, 0, SETTINGS))))
    finally:
        faiss.omp_set_num_threads(threads)
    assert found[0] == found[1] == found[2]
