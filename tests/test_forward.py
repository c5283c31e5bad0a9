from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vector_strategies import sparse_vectors

from dupmae.errors import IndexMissingError
from dupmae.indexes.forward import ForwardStore, ForwardWriter
from dupmae.indexes.scores import dense_scores, sparse_scores
from dupmae.types import Encoded, SparseVectors

FILES = ["dense.npy", "indptr.npy", "terms.npy", "weights.npy", "frequency.npy"]
VOCABULARY = 30
NO_TERMS, NO_WEIGHTS = np.zeros(0, np.int32), np.zeros(0, np.float32)


def encoded(documents: int, dim: int = 4, seed: int = 0) -> Encoded:
    rng = np.random.default_rng(seed)
    rows = []
    for size in rng.integers(0, 6, documents):
        terms = np.sort(rng.choice(VOCABULARY, size, replace=False)).astype(np.int32)
        rows.append((terms, rng.random(size, dtype=np.float32) + np.float32(0.1)))
    return Encoded(
        rng.standard_normal((documents, dim), dtype=np.float32), SparseVectors.from_rows(rows)
    )


def written(folder, *blocks: Encoded, dim: int = 4):
    with ForwardWriter(folder, dim, VOCABULARY) as writer:
        for block in blocks:
            writer.add(block)
    return folder


def arrays(encoded: Encoded):
    """Return what the files of a store of these vectors hold, in the order of FILES."""
    sparse = encoded.sparse
    frequency = np.zeros(VOCABULARY, np.int64)
    for terms, _ in sparse:
        frequency[terms] += 1
    return encoded.dense, sparse.indptr, sparse.terms, sparse.weights, frequency


def test_vectors_come_back_as_they_were_whatever_the_blocks(tmp_path):
    blocks = [encoded(3, seed=1), encoded(0), encoded(5, seed=2)]

    store = ForwardStore.open(written(tmp_path / "parts", *blocks))

    joined = SparseVectors.join([block.sparse for block in blocks])
    whole = Encoded(np.concatenate([block.dense for block in blocks]), joined)
    assert (len(store), store.dim) == (8, 4)
    sparse = store.sparse
    opened = store.dense, sparse.indptr, sparse.terms, sparse.weights, store.frequency
    for found, expected in zip(opened, arrays(whole), strict=True):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


def test_numpy_reads_the_files_as_they_are(tmp_path):
    block = encoded(7)
    folder = written(tmp_path, block)

    for name, expected in zip(FILES, arrays(block), strict=True):
        assert np.array_equal(np.load(folder / name), expected)


def test_equal_vectors_make_equal_files_whatever_the_blocks(tmp_path):
    a, b = encoded(3, seed=1), encoded(5, seed=2)
    joined = Encoded(np.concatenate([a.dense, b.dense]), SparseVectors.join([a.sparse, b.sparse]))

    parts, whole = written(tmp_path / "parts", a, b), written(tmp_path / "whole", joined)

    for name in FILES:
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_a_store_of_no_documents_opens_and_scores_nothing(tmp_path):
    store = ForwardStore.open(written(tmp_path))

    dense, sparse = store.score(np.ones(4, np.float32), NO_TERMS, NO_WEIGHTS, np.zeros(0, np.int64))

    assert (len(store), len(dense), len(sparse)) == (0, 0, 0)
    assert store.frequency.tolist() == [0] * VOCABULARY


def test_writing_holds_one_block_in_memory(tmp_path):
    block = encoded(2000, dim=64)
    tracemalloc.start()
    with ForwardWriter(tmp_path, 64, VOCABULARY) as writer:
        for _ in range(20):
            writer.add(block)
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2 * block.dense.nbytes < (tmp_path / "dense.npy").stat().st_size / 9


def test_scoring_reads_the_candidates_only(tmp_path):
    store = ForwardStore.open(written(tmp_path, encoded(4000, dim=384), dim=384))
    ordinals = np.arange(0, 4000, 100)
    query = np.ones(384, np.float32)
    tracemalloc.start()
    store.score(query, np.array([3], np.int32), np.ones(1, np.float32), ordinals)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < store.dense.nbytes / 10


@given(st.sampled_from([1, 2, 7, 9, 130, 384]), st.integers(1, 40), st.integers(0, 2**32))
def test_dense_scores_do_not_depend_on_what_is_scored_beside_them(dim, documents, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((documents, dim), dtype=np.float32)
    query = rng.standard_normal(dim, dtype=np.float32)
    some = rng.integers(0, documents, 50)

    alone = [dense_scores(vectors, query, np.array([i]))[0] for i in range(documents)]

    assert dense_scores(vectors, query, np.arange(documents)).tolist() == alone
    assert dense_scores(vectors, query, some).tolist() == [alone[i] for i in some]


@pytest.mark.parametrize("dim", [1, 3, 384])
def test_dense_scores_do_not_depend_on_blocks_or_memory_layout(dim):
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((5000, dim), dtype=np.float32)
    query = rng.standard_normal(dim, dtype=np.float32)
    ordinals = rng.permutation(5000)

    together = dense_scores(vectors, query, ordinals)

    shifted = np.empty(1 + 5000 * dim, np.float32)[1:].reshape(5000, dim)  # aligned otherwise
    shifted[:] = vectors
    for place in range(0, 5000, 97):
        alone = dense_scores(shifted, query, ordinals[place : place + 1])
        assert alone.tobytes() == together[place : place + 1].tobytes()


def test_dense_scores_are_right_to_float64_rounding():
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((50, 384), dtype=np.float32)
    query = rng.standard_normal(384, dtype=np.float32)

    scores = dense_scores(vectors, query, np.arange(50))

    for row, score in zip(vectors.tolist(), scores, strict=True):
        exact = math.fsum(a * b for a, b in zip(row, query.tolist(), strict=True))
        size = math.fsum(abs(a * b) for a, b in zip(row, query.tolist(), strict=True))
        assert abs(score - exact) <= size * 384 * 2.0**-53


@given(sparse_vectors(min_size=1, max_size=30), sparse_vectors(1, 1), st.data())
def test_a_sparse_score_is_the_running_sum_of_products_by_rising_term(documents, queries, data):
    terms, weights = queries.row(0)
    some = data.draw(st.lists(st.integers(0, len(documents) - 1), max_size=60))
    query = dict(zip(terms.tolist(), weights.tolist(), strict=True))

    scores = sparse_scores(documents, terms, weights, np.array(some, np.int64))

    for ordinal, score in zip(some, scores.tolist(), strict=True):
        expected = 0.0
        for term, weight in zip(*(part.tolist() for part in documents.row(ordinal)), strict=True):
            expected += query.get(term, 0.0) * weight
        assert score == expected


def test_sparse_scores_do_not_depend_on_blocks():
    documents = encoded(5000).sparse
    terms, weights = np.arange(0, 30, 2, dtype=np.int32), np.full(15, 1 / 3, np.float32)
    ordinals = np.random.default_rng(5).permutation(5000)

    together = sparse_scores(documents, terms, weights, ordinals)

    for place in range(0, 5000, 97):
        alone = sparse_scores(documents, terms, weights, ordinals[place : place + 1])
        assert alone.tobytes() == together[place : place + 1].tobytes()


def test_a_query_without_terms_scores_zero(tmp_path):
    store = ForwardStore.open(written(tmp_path, encoded(5)))

    _, sparse = store.score(np.ones(4, np.float32), NO_TERMS, NO_WEIGHTS, np.arange(5))

    assert sparse.tolist() == [0.0] * 5


def test_terms_of_some_documents_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("dupmae.indexes.forward._DOCUMENTS", 7)
    store = ForwardStore.open(written(tmp_path, encoded(40)))
    some = np.arange(0, 40, 3)

    counted = store.count_terms(some)

    terms = np.concatenate([store.sparse.row(ordinal)[0] for ordinal in some])
    assert counted.tolist() == np.bincount(terms, minlength=len(store.frequency)).tolist()
    assert store.count_terms(np.arange(40)).tolist() == store.frequency.tolist()
    assert not store.count_terms(some[:0]).any()


@pytest.mark.parametrize(
    ("dense", "term", "weight", "message"),
    [
        (np.zeros((1, 3), np.float32), 1, 1.0, "expected 4 dimensions, found 3"),
        (np.full((1, 4), np.nan, np.float32), 1, 1.0, "finite"),
        (np.zeros((1, 4), np.float32), 1, -1.0, "greater than 0"),
        (np.zeros((1, 4), np.float32), -1, 1.0, "a term id is negative"),
        (np.zeros((1, 4), np.float32), 30, 1.0, "expected terms below 30, found 30"),
    ],
)
def test_vectors_that_break_the_rules_are_refused(tmp_path, dense, term, weight, message):
    row = (np.array([term], np.int32), np.array([weight], np.float32))

    with pytest.raises(ValueError, match=message), ForwardWriter(tmp_path, 4, 30) as writer:
        writer.add(Encoded(dense, SparseVectors.from_rows([row])))

    assert not (tmp_path / "dense.npy").exists()


def test_a_store_that_was_not_closed_is_not_there(tmp_path):
    writer = ForwardWriter(tmp_path, 4, VOCABULARY)
    writer.add(encoded(3))

    with pytest.raises(IndexMissingError, match=r"dense\.npy is missing"):
        ForwardStore.open(tmp_path)
    writer.abandon()


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_store_gone_on_with_after_some_blocks_has_the_same_files(tmp_path, finished, kept):
    blocks = [encoded(3, seed=1), encoded(4, seed=2), encoded(5, seed=3)]
    writer = ForwardWriter(tmp_path / "resumed", 4, VOCABULARY)
    sizes = [(0, 0)]
    for block in [*blocks[:2], encoded(6, seed=9)]:  # the last one is not to be kept
        writer.add(block)
        writer.sync()
        sizes.append((len(writer), writer.nonzeros))
    (writer.close if finished else writer.abandon)()

    with ForwardWriter(tmp_path / "resumed", 4, VOCABULARY, keep=sizes[kept]) as writer:
        for block in blocks[kept:]:
            writer.add(block)

    written(tmp_path / "whole", *blocks)
    for name in FILES:
        assert (tmp_path / "resumed" / name).read_bytes() == (
            tmp_path / "whole" / name
        ).read_bytes()


def test_a_store_that_holds_less_than_is_to_be_kept_is_found_out(tmp_path):
    written(tmp_path, encoded(3))
    with pytest.raises(IndexMissingError, match=r"terms\.npy"):
        ForwardWriter(tmp_path, 4, VOCABULARY, keep=(3, 1000))
    with pytest.raises(IndexMissingError, match=r"dense\.npy.* is missing"):
        ForwardWriter(tmp_path / "none", 4, VOCABULARY, keep=(3, 5))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:60],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"PK" + content[2:],
        lambda content: content.replace(b"'<", b"'>"),
    ],
    ids=["empty", "half a header", "cut short", "too long", "no npy", "other byte order"],
)
def test_a_damaged_file_is_named(tmp_path, name, damage):
    path = written(tmp_path, encoded(6)) / name
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(IndexMissingError, match=name.replace(".", r"\.")):
        ForwardStore.open(tmp_path)


def test_a_matrix_stored_by_columns_is_refused(tmp_path):
    path = written(tmp_path, encoded(6)) / "dense.npy"
    np.save(path, np.asfortranarray(np.load(path)))

    with pytest.raises(IndexMissingError, match=r"dense\.npy is damaged .*plain row-wise array"):
        ForwardStore.open(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path, name):
    (written(tmp_path, encoded(6)) / name).unlink()

    with pytest.raises(IndexMissingError, match=f"{name} is missing"):
        ForwardStore.open(tmp_path)


@pytest.mark.parametrize("name", ["indptr.npy", "terms.npy", "weights.npy"])
def test_a_file_of_another_index_is_found_out(tmp_path, name):
    folder = written(tmp_path / "a", encoded(6, seed=1))
    other = written(tmp_path / "b", encoded(9, seed=2))
    (folder / name).write_bytes((other / name).read_bytes())

    with pytest.raises(IndexMissingError, match=r"(indptr|weights)\.npy"):
        ForwardStore.open(folder)


def test_falling_row_borders_are_found_out(tmp_path):
    folder = written(tmp_path, encoded(6))
    indptr = np.load(folder / "indptr.npy")
    indptr[2] = indptr[-1] + 1
    np.save(folder / "indptr.npy", indptr)

    with pytest.raises(IndexMissingError, match=r"indptr\.npy does not fit"):
        ForwardStore.open(folder)
