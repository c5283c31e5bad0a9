"""The contract of `indexes/base.py`, held against every store; `exact.py` is the judge."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lucene import skip_without_lucene
from vector_strategies import VOCABULARY, batch, dense_vectors, sparse_vectors

from dupmae.indexes import (
    DenseIndex,
    ExactDense,
    ExactSparse,
    FaissFlat,
    ForwardStore,
    ForwardWriter,
    InvertedIndex,
    LuceneImpactIndex,
    SparseIndex,
    TantivyImpactIndex,
)
from dupmae.types import Bool, Encoded, Float32, Ranking, SparseVectors

DIM = 5


def tantivy_index(levels: int) -> Callable[[SparseVectors], SparseIndex]:
    def build(vectors: SparseVectors) -> SparseIndex:
        with tempfile.TemporaryDirectory() as folder:
            TantivyImpactIndex.build(Path(folder) / "t", vectors, VOCABULARY, levels=levels)
            return TantivyImpactIndex.open(Path(folder) / "t")  # mapped, so it outlives its files

    return build


def inverted_index(vectors: SparseVectors) -> SparseIndex:
    with tempfile.TemporaryDirectory() as folder:
        InvertedIndex.build(Path(folder) / "i", vectors, VOCABULARY, block=20)
        return InvertedIndex.open(Path(folder) / "i")


def lucene_index(vectors: SparseVectors) -> SparseIndex:
    skip_without_lucene()
    with tempfile.TemporaryDirectory() as folder:
        LuceneImpactIndex.build(Path(folder) / "l", vectors, VOCABULARY)
        return LuceneImpactIndex.open(Path(folder) / "l")


DENSE_STORES = {"exact": ExactDense, "faiss": FaissFlat}
SPARSE_STORES = {
    "exact": lambda vectors: ExactSparse(vectors, VOCABULARY),
    "inverted": inverted_index,
    "lucene": lucene_index,
    "tantivy": tantivy_index(31),
    "tantivy, 2 levels": tantivy_index(2),
}
MANY_EXAMPLES = settings(max_examples=examples(30))  # each may write an index to the disk


@pytest.fixture(params=DENSE_STORES.values(), ids=DENSE_STORES)
def dense_store(request) -> Callable[[Float32], DenseIndex]:
    return request.param


@pytest.fixture(params=SPARSE_STORES.values(), ids=SPARSE_STORES)
def sparse_store(request) -> Callable[[SparseVectors], SparseIndex]:
    return request.param


def matrix(*rows: list[float]) -> Float32:
    return np.array(rows, np.float32).reshape(len(rows), -1)


def random_batch(size: int, nonzeros: int, seed: int) -> SparseVectors:
    rng = np.random.default_rng(seed)
    terms = np.sort(rng.random((size, VOCABULARY)).argsort(axis=1)[:, :nonzeros], axis=1)
    return SparseVectors(
        np.arange(0, size * nonzeros + 1, nonzeros),
        terms.astype(np.int32).ravel(),
        rng.exponential(0.5, size * nonzeros).astype(np.float32) + np.float32(0.01),
    ).check()


def same(found, expected) -> bool:
    return len(found) == len(expected) and all(
        np.array_equal(a.ordinals, b.ordinals) and np.array_equal(a.scores, b.scores)
        for a, b in zip(found, expected, strict=True)
    )


def only(ranking: Ranking, allowed: Bool) -> dict[int, float]:
    pairs = zip(ranking.ordinals.tolist(), ranking.scores.tolist(), strict=True)
    return {ordinal: score for ordinal, score in pairs if allowed[ordinal]}


def masks(size: int) -> st.SearchStrategy[Bool]:
    """Any documents of so many, often few or nearly all."""
    few = st.sets(st.integers(0, max(size - 1, 0)), max_size=min(2, size))
    return st.one_of(
        arrays(np.bool_, size),
        few.map(lambda ordinals: np.isin(np.arange(size), list(ordinals))),
        few.map(lambda ordinals: ~np.isin(np.arange(size), list(ordinals))),
    )


# ---- dense ---------------------------------------------------------------------------------


@MANY_EXAMPLES
@given(
    dense_vectors(st.integers(0, 30), DIM),
    arrays(np.float32, (1, DIM), elements=st.floats(-1e6, 1e6, width=32)),
    st.integers(1, 35),
)
@pytest.mark.parametrize("name", DENSE_STORES)
def test_no_dense_score_exceeds_what_is_promised(name, vectors, query, k):
    store = DENSE_STORES[name](vectors)

    (ranking,) = store.search(query, k)

    (true,) = ExactDense(vectors).search(query, len(vectors) or 1)
    score = dict(zip(true.ordinals.tolist(), true.scores.tolist(), strict=True))
    error = store.error_bound(query[0])
    listed = dict(zip(ranking.ordinals.tolist(), ranking.scores.tolist(), strict=True))
    assert len(listed) == len(ranking) == min(k, len(vectors))
    for ordinal, exact in score.items():
        assert exact <= listed.get(ordinal, ranking.scores[-1]) + error


@MANY_EXAMPLES
@given(st.data(), dense_vectors(st.integers(0, 30), DIM), st.integers(1, 35))
@pytest.mark.parametrize("name", DENSE_STORES)
def test_a_restricted_dense_search_keeps_its_promise_to_the_allowed(name, data, vectors, k):
    allowed = data.draw(masks(len(vectors)))
    query = data.draw(arrays(np.float32, (2, DIM), elements=st.floats(-1e6, 1e6, width=32)))
    store = DENSE_STORES[name](vectors)

    rankings = store.search(query, k, allowed)

    truth = ExactDense(vectors).search(query, len(vectors) or 1)
    for vector, ranking, true in zip(query, rankings, truth, strict=True):
        score, error = only(true, allowed), store.error_bound(vector)
        listed = only(ranking, allowed)
        assert len(listed) == len(ranking) == min(k, np.count_nonzero(allowed))
        for ordinal, exact in score.items():
            assert exact <= listed.get(ordinal, ranking.scores[-1]) + error


def test_dense_scores_of_whole_numbers_are_exact_and_may_be_negative(dense_store):
    store = dense_store(matrix([1, 2], [-3, 0], [0, -1], [2, 2]))

    (ranking,) = store.search(matrix([2, 1]), 4)

    assert ranking.ordinals.tolist() == [3, 0, 2, 1]
    assert ranking.scores.tolist() == [6, 4, -1, -6]


def test_dense_ties_are_listed_by_ordinal(dense_store):
    store = dense_store(matrix(*([[0, 1]] * 150), *([[1, 0]] * 150)))

    (ranking,) = store.search(matrix([1, 0]), 300)

    assert ranking.ordinals.tolist() == [*range(150, 300), *range(150)]


def test_dense_k_above_n_gives_all_and_k_of_one_the_best(dense_store):
    store = dense_store(matrix([1], [3], [2]))

    assert store.search(matrix([1]), 1000)[0].ordinals.tolist() == [1, 2, 0]
    assert store.search(matrix([1]), 1)[0].ordinals.tolist() == [1]


def test_a_dense_store_of_no_documents_gives_empty_rankings(dense_store):
    store = dense_store(np.zeros((0, DIM), np.float32))

    assert (len(store), store.dim) == (0, DIM)
    assert [len(ranking) for ranking in store.search(np.ones((2, DIM), np.float32), 3)] == [0, 0]
    assert store.error_bound(np.ones(DIM, np.float32)) >= 0


def test_a_dense_store_of_one_document_gives_it(dense_store):
    assert dense_store(matrix([4, 0])).search(matrix([0.5, 1]), 3)[0].scores.tolist() == [2]


def test_no_dense_queries_give_no_rankings(dense_store):
    assert dense_store(matrix([1, 2])).search(np.zeros((0, 2), np.float32), 3) == []


def test_dense_batches_equal_single_queries(dense_store):
    rng = np.random.default_rng(0)
    vectors = rng.integers(-4, 5, (200, DIM)).astype(np.float32)  # sums are exact in any order
    queries = rng.integers(-4, 5, (64, DIM)).astype(np.float32)
    store = dense_store(vectors)

    together = store.search(queries, 200)

    assert same(together, [store.search(query[None], 200)[0] for query in queries])
    assert same(together, ExactDense(vectors).search(queries, 200))


# ---- sparse --------------------------------------------------------------------------------


@pytest.mark.slow
@MANY_EXAMPLES
@given(sparse_vectors(max_size=30), sparse_vectors(1, 3), st.integers(1, 35))
@pytest.mark.parametrize("name", SPARSE_STORES)
def test_no_sparse_score_exceeds_what_is_promised(name, vectors, queries, k):
    rankings = SPARSE_STORES[name](vectors).search(queries, k)

    exact = ExactSparse(vectors, VOCABULARY).search(queries, len(vectors) or 1)
    for ranking, true in zip(rankings, exact, strict=True):
        listed = dict(zip(ranking.ordinals.tolist(), ranking.scores.tolist(), strict=True))
        assert len(listed) == len(ranking) == min(k, len(true))
        assert set(listed) <= set(true.ordinals.tolist())
        for ordinal, score in zip(true.ordinals.tolist(), true.scores.tolist(), strict=True):
            assert score <= listed.get(ordinal, ranking.scores[-1])


@pytest.mark.slow
@MANY_EXAMPLES
@given(st.data(), sparse_vectors(max_size=30), sparse_vectors(1, 3), st.integers(1, 35))
@pytest.mark.parametrize("name", SPARSE_STORES)
def test_a_restricted_sparse_search_keeps_its_promise_to_the_allowed(
    name, data, vectors, queries, k
):
    allowed = data.draw(masks(len(vectors)))

    rankings = SPARSE_STORES[name](vectors).search(queries, k, allowed)

    exact = ExactSparse(vectors, VOCABULARY).search(queries, len(vectors) or 1)
    for ranking, true in zip(rankings, exact, strict=True):
        score, listed = only(true, allowed), only(ranking, allowed)
        assert len(listed) == len(ranking) == min(k, len(score))
        assert set(listed) <= set(score)
        for ordinal, truth in score.items():
            assert truth <= listed.get(ordinal, ranking.scores[-1])


def test_a_restricted_sparse_search_reads_as_deep_as_it_must(sparse_store):
    # The few that are allowed score least of all.
    vectors = batch(*({1: 300 - i} for i in range(300)))
    allowed = np.arange(300) >= 297

    (ranking,) = sparse_store(vectors).search(batch({1: 1}), 2, allowed)

    assert set(ranking.ordinals.tolist()) < {297, 298, 299}
    assert len(ranking) == 2


def test_sparse_scores_are_in_units_of_the_true_score(sparse_store):
    # Each weight has its cell, and is a whole number of 255ths of the largest of its term.
    vectors = batch({1: 1, 3: 5}, {}, {3: 1}, {1: 5, 2: 1}, {7: 9})

    (ranking,) = sparse_store(vectors).search(batch({1: 2, 3: 0.5, 5: 100}), 10)

    assert ranking.ordinals.tolist() == [3, 0, 2]
    assert ranking.scores == pytest.approx([10, 4.5, 0.5], rel=1e-5)


def test_sparse_ties_are_listed_by_ordinal(sparse_store):
    store = sparse_store(batch(*([{2: 1.0}] * 150), *([{1: 3.0, 2: 1.0}] * 150)))

    (ranking,) = store.search(batch({1: 0.3, 2: 0.7}), 300)

    assert ranking.ordinals.tolist() == [*range(150, 300), *range(150)]


def test_sparse_k_above_n_gives_all_that_share_a_term_and_k_of_one_the_best(sparse_store):
    store = sparse_store(batch({1: 1}, {1: 3}, {2: 9}, {1: 1}))

    assert store.search(batch({1: 1}), 1000)[0].ordinals.tolist() == [1, 0, 3]
    assert store.search(batch({1: 1}), 1)[0].ordinals.tolist() == [1]


@pytest.mark.parametrize("vectors", [batch(), batch({}, {})], ids=["none", "empty ones"])
def test_a_sparse_store_of_no_terms_gives_empty_rankings(sparse_store, vectors):
    store = sparse_store(vectors)

    assert len(store) == len(vectors)
    assert [len(ranking) for ranking in store.search(batch({1: 1}, {}), 3)] == [0, 0]


def test_a_sparse_store_of_one_document_gives_it(sparse_store):
    (ranking,) = sparse_store(batch({1: 4})).search(batch({0: 1, 1: 0.5}), 3)

    assert ranking.scores == pytest.approx([2])


def test_an_empty_query_and_one_without_known_terms_find_nothing(sparse_store):
    store = sparse_store(batch({1: 1}, {2: 1}))

    assert [len(ranking) for ranking in store.search(batch({}, {5: 1}), 3)] == [0, 0]


def test_no_sparse_queries_give_no_rankings(sparse_store):
    assert sparse_store(batch({1: 1})).search(batch(), 3) == []


def test_sparse_batches_equal_single_queries(sparse_store):
    store, queries = sparse_store(random_batch(300, 6, seed=1)), random_batch(20, 4, seed=2)

    together = store.search(queries, 300)

    assert same(together, [store.search(queries.rows(i, i + 1), 300)[0] for i in range(20)])


# ---- on the disk ---------------------------------------------------------------------------


@pytest.fixture
def reopened(tmp_path):
    """Return vectors as they were, and a forward store of them opened from the disk."""
    rng = np.random.default_rng(6)
    whole = Encoded(rng.standard_normal((500, DIM), dtype=np.float32), random_batch(500, 6, seed=3))
    with ForwardWriter(tmp_path / "forward", DIM, VOCABULARY) as writer:
        for start in range(0, 500, 100):
            end = start + 100
            writer.add(Encoded(whole.dense[start:end], whole.sparse.rows(start, end)))
    return whole, ForwardStore.open(tmp_path / "forward")


def test_dense_stores_over_mapped_files_answer_as_over_memory(dense_store, reopened):
    whole, forward = reopened
    queries = whole.dense[:10]

    found = dense_store(forward.dense).search(queries, 50)

    assert same(found, dense_store(whole.dense).search(queries, 50))
    assert dense_store(forward.dense).error_bound(queries[0]) == dense_store(
        whole.dense
    ).error_bound(queries[0])


def test_sparse_stores_over_mapped_files_answer_as_over_memory(sparse_store, reopened):
    whole, forward = reopened
    queries = random_batch(10, 4, seed=4)

    found = sparse_store(forward.sparse).search(queries, 500)

    assert same(found, sparse_store(whole.sparse).search(queries, 500))


def test_exact_scores_equal_those_of_the_forward_store_to_the_last_bit(reopened):
    _, forward = reopened
    rng = np.random.default_rng(7)
    dense_query = rng.standard_normal(DIM, dtype=np.float32)
    sparse_query = random_batch(1, 5, seed=8)

    (dense,) = ExactDense(forward.dense).search(dense_query[None], 500)
    (sparse,) = ExactSparse(forward.sparse, VOCABULARY).search(sparse_query, 500)

    for ranking, part in ((dense, 0), (sparse, 1)):
        scores = forward.score(dense_query, *sparse_query.row(0), ranking.ordinals)[part]
        assert scores.tobytes() == ranking.scores.tobytes()


def test_faiss_copies_no_matrix():
    with pytest.raises(ValueError, match="row-wise"):
        FaissFlat(np.asfortranarray(np.ones((3, 2), np.float32)))
