from __future__ import annotations

import shutil
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from vector_strategies import LARGE_VOCABULARY as MANY
from vector_strategies import VOCABULARY, skewed, sparse_vectors

from dupmae.errors import IndexMissingError
from dupmae.indexes import inverted
from dupmae.indexes.exact import ExactSparse
from dupmae.indexes.inverted import LARGEST_IMPACT, InvertedIndex
from dupmae.types import SparseVectors

FILES = ["indptr", "ordinals", "impacts", "steps", "frequent", "rows"]


def built(folder: Path, vectors: SparseVectors, vocabulary_size: int, **options) -> InvertedIndex:
    InvertedIndex.build(folder, vectors, vocabulary_size, **options)
    return InvertedIndex.open(folder)


def excess(documents: SparseVectors, query: SparseVectors, index: InvertedIndex, size: int):
    """Return by how much each bound exceeds the score, and by how much it may, both (m,)."""
    (ranking,) = index.search(query, len(documents))
    (true,) = ExactSparse(documents, size).search(query, len(documents))
    scores = np.zeros(len(documents))
    scores[true.ordinals] = true.scores
    assert set(ranking.ordinals) == set(true.ordinals)
    largest = np.zeros(size)
    np.maximum.at(largest, documents.terms, documents.weights)
    products = query.weights.astype(np.float64) * largest[query.terms]
    one_step = products.sum() / LARGEST_IMPACT
    rounding = len(products) * products.sum() / 8e6
    return ranking.scores - scores[ranking.ordinals], one_step + rounding


@pytest.fixture(scope="module")
def documents():
    return skewed(9000, 12, seed=0)


@pytest.fixture(scope="module")
def folder(documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "inverted"
    InvertedIndex.build(folder, documents, MANY)
    return folder


@pytest.fixture
def small(tmp_path):
    InvertedIndex.build(tmp_path / "small", skewed(50, 5, seed=5), MANY)
    return tmp_path / "small"


@settings(max_examples=examples(60))
@given(sparse_vectors(1, 30), sparse_vectors(1, 1), st.integers(1, 40))
def test_a_bound_exceeds_the_score_by_less_than_a_step_of_each_term(vectors, query, block):
    with TemporaryDirectory() as folder:
        index = built(Path(folder), vectors, VOCABULARY, block=block)
        found, allowed = excess(vectors, query, index, VOCABULARY)

    assert np.all(found >= 0)
    assert np.all(found <= allowed * (1 + 1e-9))


def test_bounds_of_thousands_of_documents_hold_and_are_tight(documents, folder):
    index, queries = InvertedIndex.open(folder), skewed(20, 25, seed=1)

    for number in range(20):
        found, allowed = excess(documents, queries.rows(number, number + 1), index, MANY)
        assert 0 <= found.min() <= found.max() <= allowed
        assert found.max() < 0.01 * index.search(queries, 1)[number].scores[0]


def test_a_query_of_two_thousand_terms_keeps_its_bounds(documents, folder):
    rng = np.random.default_rng(2)
    terms = np.sort(rng.choice(MANY, 2000, replace=False)).astype(np.int32)
    query = SparseVectors.from_rows([(terms, rng.random(2000, dtype=np.float32) + 1)])

    found, allowed = excess(documents, query, InvertedIndex.open(folder), MANY)

    assert 0 <= found.min() <= found.max() <= allowed


def test_a_list_and_a_row_of_a_term_count_the_same(documents, folder, tmp_path, monkeypatch):
    queries = skewed(20, 25, seed=3)
    expected = InvertedIndex.open(folder).search(queries, 50)
    rows = np.load(folder / "rows.npy").shape[0]
    assert 0 < rows < MANY

    for name, frequent in (("lists", 0), ("rows", 10**6)):
        monkeypatch.setattr(inverted, "FREQUENT", frequent)
        found = built(tmp_path / name, documents, MANY).search(queries, 50)
        for a, b in zip(found, expected, strict=True):
            assert a.ordinals.tolist() == b.ordinals.tolist()
            assert a.scores.tolist() == b.scores.tolist()


@given(
    arrays(np.int32, st.integers(0, 700), elements=st.integers(0, 20)),
    st.integers(1, 40),
)
def test_no_sum_among_the_k_largest_is_missed(sums, k):
    found = inverted.largest(sums, k)

    least = np.sort(sums)[-k] if k <= len(sums) else 0
    assert set(np.flatnonzero(sums >= max(least, 1))) <= set(found)
    assert np.all(sums[found] > 0)


def test_few_sums_below_the_k_largest_are_kept():
    sums = np.random.default_rng(0).permutation(100_000).astype(np.int32)

    assert 100 <= len(inverted.largest(sums, 100)) <= 120


@pytest.mark.parametrize("block", [1, 500])
def test_equal_vectors_make_equal_files_whatever_the_blocks(small, tmp_path, block):
    InvertedIndex.build(tmp_path / "parts", skewed(50, 5, seed=5), MANY, block=block)

    for name in FILES:
        parts = tmp_path / "parts" / f"{name}.npy"
        assert parts.read_bytes() == (small / f"{name}.npy").read_bytes()


def test_a_term_has_the_ordinals_of_all_documents_or_a_row(small):
    vectors = skewed(50, 5, seed=5)
    indptr, ordinals, _, _, frequent, rows = (np.load(small / f"{name}.npy") for name in FILES)
    owners = np.repeat(np.arange(50), np.diff(vectors.indptr))

    assert 0 < len(frequent) < len(np.unique(vectors.terms))
    for term in np.unique(vectors.terms):
        holders = owners[vectors.terms == term]
        if len(holders) > 50 / inverted.FREQUENT:
            assert np.flatnonzero(rows[frequent == term][0]).tolist() == holders.tolist()
        else:
            assert ordinals[indptr[term] : indptr[term + 1]].tolist() == holders.tolist()


def test_building_in_blocks_holds_few_of_them_in_memory(documents, tmp_path):
    peaks = []
    for block in (5000, len(documents.terms)):
        tracemalloc.start()
        InvertedIndex.build(tmp_path / str(block), documents, MANY, block=block)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[0] < peaks[1] / 3


def test_many_threads_search_at_once(folder):
    index, queries = InvertedIndex.open(folder), skewed(40, 10, seed=4)
    expected = index.search(queries, 20)
    barrier = threading.Barrier(4)

    def search(_):
        barrier.wait()
        return index.search(queries, 20)

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(search, range(4)):
            for a, b in zip(found, expected, strict=True):
                assert a.ordinals.tolist() == b.ordinals.tolist()
                assert a.scores.tolist() == b.scores.tolist()


def test_building_over_an_index_is_refused(small):
    with pytest.raises(FileExistsError, match="holds an index already"):
        InvertedIndex.build(small, skewed(1, 5, seed=0), MANY)


def test_a_term_outside_the_vocabulary_is_refused_and_nothing_left(tmp_path):
    outside = SparseVectors.from_rows([(np.array([30], np.int32), np.ones(1, np.float32))])

    with pytest.raises(ValueError, match="term 30 in a vocabulary of 12"):
        InvertedIndex.build(tmp_path, outside, VOCABULARY)
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_at_its_end_leaves_nothing(documents, tmp_path, monkeypatch):
    def fill_the_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("dupmae.files.publish", fill_the_disk)

    with pytest.raises(OSError, match="no space left"):
        InvertedIndex.build(tmp_path, documents, MANY)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(IndexMissingError, match="nowhere"):
        InvertedIndex.open(tmp_path / "nowhere")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut short", "overwritten"])
def test_damage_is_an_error_that_names_the_file(small, name, damage):
    path = small / f"{name}.npy"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        replaced = {
            "empty": b"",
            "cut short": content[: len(content) // 2],
            "overwritten": b"\xff" * len(content),
        }
        path.write_bytes(replaced[damage])

    with pytest.raises(IndexMissingError, match=name):
        InvertedIndex.open(small)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_index_is_an_error(small, tmp_path, name):
    InvertedIndex.build(tmp_path / "other", skewed(90, 8, seed=6), MANY + 1)
    shutil.copy(tmp_path / "other" / f"{name}.npy", small)

    with pytest.raises(IndexMissingError, match="does not fit"):
        InvertedIndex.open(small)
