"""What is Lucene's own; the contract of all stores is held against it in `test_stores.py`."""

from __future__ import annotations

import gc
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lucene import skip_without_lucene
from vector_strategies import LARGE_VOCABULARY as VOCABULARY
from vector_strategies import VOCABULARY as FEW
from vector_strategies import skewed, sparse_vectors

from dupmae.errors import IndexMissingError
from dupmae.indexes.exact import ExactSparse
from dupmae.indexes.jvm import java_class
from dupmae.indexes.lucene_store import LuceneImpactIndex
from dupmae.types import SparseVectors


@pytest.fixture(autouse=True)
def _lucene():
    skip_without_lucene()


@pytest.fixture(scope="module")
def documents():
    return skewed(9000, 12, seed=0)  # more than twice what Lucene unites at a time


@pytest.fixture(scope="module")
def folder(documents, tmp_path_factory):
    skip_without_lucene()
    folder = tmp_path_factory.mktemp("index") / "lucene"
    LuceneImpactIndex.build(folder, documents, VOCABULARY)
    return folder


@pytest.fixture(scope="module")
def small_once(tmp_path_factory):
    skip_without_lucene()
    folder = tmp_path_factory.mktemp("index") / "small"
    LuceneImpactIndex.build(folder, skewed(50, 5, seed=5), VOCABULARY)
    return folder


@pytest.fixture
def small(small_once, tmp_path):
    return Path(shutil.copytree(small_once, tmp_path / "small"))


def scores_of_all(documents, queries):
    """Return the true score of every document, (queries, documents)."""
    scores = np.zeros((len(queries), len(documents)))
    rankings = ExactSparse(documents, VOCABULARY).search(queries, len(documents))
    for row, ranking in zip(scores, rankings, strict=True):
        row[ranking.ordinals] = ranking.scores
    return scores


@pytest.mark.slow
def test_its_bounds_hold_and_are_tight_on_thousands_of_documents(documents, folder):
    queries = skewed(20, 25, seed=1)

    rankings = LuceneImpactIndex.open(folder).search(queries, 64)

    for ranking, score in zip(rankings, scores_of_all(documents, queries), strict=True):
        assert np.all(ranking.scores >= score[ranking.ordinals])
        assert np.delete(score, ranking.ordinals).max() <= ranking.scores[-1]
        assert ranking.scores[-1] <= 1.02 * np.sort(score)[-64]


def test_a_query_of_two_thousand_terms_keeps_its_bounds(documents, folder):
    rng = np.random.default_rng(2)
    terms = np.sort(rng.choice(VOCABULARY, 2000, replace=False)).astype(np.int32)
    queries = SparseVectors.from_rows([(terms, rng.random(2000, dtype=np.float32) + 1)])

    (ranking,) = LuceneImpactIndex.open(folder).search(queries, len(documents))

    (score,) = scores_of_all(documents, queries)
    assert sorted(ranking.ordinals.tolist()) == np.flatnonzero(score).tolist()
    excess = ranking.scores / score[ranking.ordinals]
    assert excess.min() >= 1
    assert np.median(excess) < 1.02


def test_bounds_hold_between_the_largest_and_the_smallest_weights(tmp_path):
    largest, smallest = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
    rows = [([0, 1], [largest, smallest]), ([0], [smallest]), ([1], [largest]), ([2], [smallest])]
    vectors = SparseVectors.from_rows([(np.array(t), np.array(w)) for t, w in rows]).check()
    queries = SparseVectors.from_rows([(np.arange(3), np.array([largest, smallest, smallest]))])
    LuceneImpactIndex.build(tmp_path / "l", vectors, VOCABULARY)

    (ranking,) = LuceneImpactIndex.open(tmp_path / "l").search(queries, 4)

    (score,) = scores_of_all(vectors, queries)
    assert sorted(ranking.ordinals.tolist()) == [0, 1, 2, 3]
    assert np.all(ranking.scores >= score[ranking.ordinals])


def test_documents_keep_their_order_in_however_many_parts_they_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr("dupmae.indexes.lucene.BUFFER_MB", 0.2)
    # The later parts take more bytes; Lucene's usual merging would move them to the front.
    plain = [(np.arange(20), np.ones(20))] * 3000
    documents = SparseVectors.join([SparseVectors.from_rows(plain), skewed(3000, 20, seed=6)])
    LuceneImpactIndex.build(tmp_path / "parts", documents, VOCABULARY)
    queries = documents.rows(5990, 6000)

    rankings = LuceneImpactIndex.open(tmp_path / "parts").search(queries, 6000)

    for ranking, score in zip(rankings, scores_of_all(documents, queries), strict=True):
        assert sorted(ranking.ordinals.tolist()) == np.flatnonzero(score).tolist()
        assert np.all(ranking.scores >= score[ranking.ordinals])


@pytest.mark.slow
@settings(max_examples=30)
@given(st.data(), sparse_vectors(max_size=30), sparse_vectors(1, 3), st.integers(1, 35))
def test_a_restricted_search_keeps_its_promise_to_the_allowed(
    tmp_path_factory, data, vectors, queries, k
):
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=30, max_size=30)))
    allowed = allowed[: len(vectors)]
    folder = tmp_path_factory.mktemp("restricted") / "lucene"
    LuceneImpactIndex.build(folder, vectors, FEW)

    rankings = LuceneImpactIndex.open(folder).search(queries, k, allowed)

    exact = ExactSparse(vectors, FEW).search(queries, len(vectors) or 1)
    for ranking, true in zip(rankings, exact, strict=True):
        pairs = zip(true.ordinals.tolist(), true.scores.tolist(), strict=True)
        score = {ordinal: value for ordinal, value in pairs if allowed[ordinal]}
        listed = dict(zip(ranking.ordinals.tolist(), ranking.scores.tolist(), strict=True))
        assert len(listed) == min(k, len(score))
        assert set(listed) <= set(score)
        for ordinal, value in score.items():
            assert value <= listed.get(ordinal, ranking.scores[-1])


def test_opening_and_searching_write_nothing_in_the_folder(folder):
    before = folder.stat().st_mtime_ns, sorted(folder.iterdir())

    LuceneImpactIndex.open(folder).search(skewed(1, 5, seed=3), 3)

    assert (folder.stat().st_mtime_ns, sorted(folder.iterdir())) == before


def test_many_threads_search_at_once_and_java_forgets_them(folder):
    store, queries = LuceneImpactIndex.open(folder), skewed(40, 10, seed=4)
    expected = store.search(queries, 20)
    barrier = threading.Barrier(4)

    def search(_):
        barrier.wait()
        return store.search(queries, 20)

    threads = java_class("java.lang.management.ManagementFactory").getThreadMXBean()
    before = threads.getThreadCount()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(search, range(4)):
            for a, b in zip(found, expected, strict=True):
                assert a.ordinals.tolist() == b.ordinals.tolist()
                assert a.scores.tolist() == b.scores.tolist()
    assert threads.getThreadCount() <= before


@pytest.mark.slow
def test_two_indexes_searched_by_threads_at_once_give_each_its_own_answers(folder, small):
    # pyjnius keeps the object of a bound method in the method, which both searchers share.
    stores = [LuceneImpactIndex.open(folder), LuceneImpactIndex.open(small)]
    queries = skewed(30, 10, seed=4)
    expected = [store.search(queries, 20) for store in stores]
    with ThreadPoolExecutor(4) as pool:
        tasks = [(place, pool.submit(stores[place].search, queries, 20)) for place in [0, 1] * 4]
        for place, task in tasks:
            for a, b in zip(task.result(), expected[place], strict=True):
                assert a.ordinals.tolist() == b.ordinals.tolist()
                assert a.scores.tolist() == b.scores.tolist()


def test_an_index_that_is_let_go_closes_itself_and_no_other(folder, small):
    kept = LuceneImpactIndex.open(folder)
    dropped = LuceneImpactIndex.open(small)
    reader = dropped._searcher._searcher.getIndexReader()
    newest = LuceneImpactIndex.open(folder)
    del dropped
    gc.collect()
    assert reader.getRefCount() == 0
    query = skewed(1, 10, seed=4)
    assert len(kept.search(query, 5)[0]) == len(newest.search(query, 5)[0]) > 0


def test_building_over_an_index_is_refused(documents, folder):
    with pytest.raises(FileExistsError, match="holds an index already"):
        LuceneImpactIndex.build(folder, documents.rows(0, 1), VOCABULARY)


def test_a_term_beyond_the_vocabulary_is_refused(tmp_path):
    with pytest.raises(ValueError, match="term 3000 in a vocabulary of 3000"):
        LuceneImpactIndex.build(
            tmp_path / "l", SparseVectors.from_rows([(np.array([3000]), np.ones(1))]), VOCABULARY
        )


@pytest.mark.skipif(os.name == "nt", reason="no limits on Windows")
def test_a_full_disk_is_an_os_error_that_names_the_folder(tmp_path, documents):
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
        with pytest.raises(OSError, match=r"cannot write .*full: .*too large"):
            LuceneImpactIndex.build(tmp_path / "full", documents, VOCABULARY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))


def test_a_build_leaves_no_lock(small):
    assert not [path for path in small.iterdir() if "lock" in path.name]


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(IndexMissingError, match="nowhere"):
        LuceneImpactIndex.open(tmp_path / "nowhere")


@pytest.mark.parametrize("pattern", ["steps.npy", "segments_*", "*.si", "*.doc", "*.tim", "*.kdd"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut short", "overwritten"])
def test_damage_is_an_error_that_names_the_folder(small, pattern, damage):
    (path,) = small.glob(pattern)
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        replaced = {
            "empty": b"",
            "cut short": content[: len(content) // 2],
            "overwritten": b"\xff" * len(content),
        }
        path.write_bytes(replaced[damage])

    with pytest.raises(IndexMissingError, match="small"):
        LuceneImpactIndex.open(small)
