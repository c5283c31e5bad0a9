from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from vector_strategies import LARGE_VOCABULARY as VOCABULARY
from vector_strategies import skewed

from dupmae.errors import IndexMissingError
from dupmae.indexes.exact import ExactSparse
from dupmae.indexes.tantivy_store import TantivyImpactIndex
from dupmae.types import SparseVectors


@pytest.fixture(scope="module")
def documents():
    return skewed(9000, 12, seed=0)  # more than twice what Tantivy unites at a time


@pytest.fixture(scope="module")
def folder(documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "tantivy"
    TantivyImpactIndex.build(folder, documents, VOCABULARY)
    return folder


@pytest.fixture
def small(tmp_path):
    folder = tmp_path / "small"
    TantivyImpactIndex.build(folder, skewed(50, 5, seed=5), VOCABULARY)
    return folder


def test_its_bounds_hold_and_are_tight_on_thousands_of_documents(documents, folder):
    store, exact = TantivyImpactIndex.open(folder), ExactSparse(documents, VOCABULARY)
    queries = skewed(20, 25, seed=1)

    found, everything = store.search(queries, 64), exact.search(queries, len(documents))

    for ranking, true in zip(found, everything, strict=True):
        score = np.zeros(len(documents))
        score[true.ordinals] = true.scores
        assert np.all(ranking.scores >= score[ranking.ordinals])
        assert np.delete(score, ranking.ordinals).max() <= ranking.scores[-1]
        assert ranking.scores[-1] <= 1.1 * true.scores[63]


def test_a_query_of_two_thousand_terms_keeps_its_bounds(documents, folder):
    rng = np.random.default_rng(2)
    terms = np.sort(rng.choice(VOCABULARY, 2000, replace=False)).astype(np.int32)
    queries = SparseVectors.from_rows([(terms, rng.random(2000, dtype=np.float32) + 1)])

    (ranking,) = TantivyImpactIndex.open(folder).search(queries, len(documents))

    (true,) = ExactSparse(documents, VOCABULARY).search(queries, len(documents))
    assert sorted(ranking.ordinals) == sorted(true.ordinals)
    score = dict(zip(true.ordinals.tolist(), true.scores.tolist(), strict=True))
    excess = [s / score[o] for o, s in zip(ranking.ordinals.tolist(), ranking.scores, strict=True)]
    assert min(excess) >= 1
    assert np.median(excess) < 1.1


def test_opening_and_searching_write_nothing_in_the_folder(folder):
    before = folder.stat().st_mtime_ns, sorted(folder.iterdir())

    TantivyImpactIndex.open(folder).search(skewed(1, 5, seed=3), 3)

    assert (folder.stat().st_mtime_ns, sorted(folder.iterdir())) == before


def test_opening_leaves_no_temporary_files(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    store = TantivyImpactIndex.open(folder)

    assert list(tmp_path.iterdir()) == []
    assert len(store.search(skewed(1, 5, seed=3), 3)[0]) == 3


def test_an_index_opens_where_no_links_can_be_made(small, monkeypatch):
    def refuse(*_):
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)

    assert len(TantivyImpactIndex.open(small)) == 50


def test_many_threads_search_at_once(folder):
    store, queries = TantivyImpactIndex.open(folder), skewed(40, 10, seed=4)
    expected = store.search(queries, 20)
    barrier = threading.Barrier(4)

    def search(_):
        barrier.wait()
        return store.search(queries, 20)

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(search, range(4)):
            for a, b in zip(found, expected, strict=True):
                assert a.ordinals.tolist() == b.ordinals.tolist()
                assert a.scores.tolist() == b.scores.tolist()


def test_building_over_an_index_is_refused(documents, folder):
    with pytest.raises(FileExistsError, match="holds an index already"):
        TantivyImpactIndex.build(folder, documents.rows(0, 1), VOCABULARY)


def test_a_build_leaves_no_lock(small):
    assert not [path for path in small.iterdir() if "lock" in path.name]


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(IndexMissingError, match="nowhere"):
        TantivyImpactIndex.open(tmp_path / "nowhere")


@pytest.mark.parametrize("pattern", ["tops.npy", "meta.json", "*.idx", "*.term", "*.fast"])
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
        TantivyImpactIndex.open(small)
