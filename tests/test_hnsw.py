"""Facts about graphs of near documents: what they find, keep and refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dupmae.errors import IndexMissingError
from dupmae.indexes.hnsw import GRAPH_NAME, NearGraph
from dupmae.types import Bool, Float32, Int64


def graph_of(folder: Path, vectors: Float32) -> NearGraph:
    NearGraph.build(folder, vectors)
    return NearGraph.open(folder, vectors)


def best(vectors: Float32, query: Float32, k: int, allowed: Bool | None = None) -> Int64:
    scores = vectors @ query
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    return np.argsort(-scores)[:k]


@pytest.fixture(scope="module")
def vectors() -> Float32:
    """Return vectors of many lengths."""
    rng = np.random.default_rng(0)
    lengths = rng.uniform(0.5, 2.0, size=(2000, 1))
    return (lengths * rng.normal(size=(2000, 12))).astype(np.float32)


@pytest.mark.parametrize("share", [None, 2, 8])
def test_a_graph_finds_nearly_all_of_the_best(
    tmp_path: Path, vectors: Float32, share: int | None
) -> None:
    graph = graph_of(tmp_path, vectors)
    allowed = None if share is None else np.arange(2000) % share == 0
    queries = np.random.default_rng(1).normal(size=(20, 12)).astype(np.float32)
    walks = graph.search(queries, 50, allowed)
    found = 0
    for query, walk in zip(queries, walks, strict=True):
        assert len(set(walk.tolist())) == len(walk) <= 50
        assert allowed is None or allowed[walk].all()
        found += len(np.intersect1d(walk, best(vectors, query, 50, allowed)))
    assert len(graph) == 2000
    assert found > 0.95 * 20 * 50


def test_vectors_are_kept_rounded(tmp_path: Path, vectors: Float32) -> None:
    rows = np.array([7, 1999, 7])
    kept = graph_of(tmp_path, vectors).vectors(rows)
    assert 0 < np.abs(kept - vectors[rows]).max() < np.ptp(vectors, axis=0).max() / 255


def test_more_than_there_are_gives_all_once(tmp_path: Path, vectors: Float32) -> None:
    graph = graph_of(tmp_path, vectors[:5])
    (walk,) = graph.search(vectors[:1], 10)
    assert sorted(walk.tolist()) == [0, 1, 2, 3, 4]
    (walk,) = graph.search(vectors[:1], 10, np.array([False, True, False, True, False]))
    assert sorted(walk.tolist()) == [1, 3]


@pytest.mark.parametrize("rows", [np.zeros((3, 4)), np.ones((1, 4)), np.ones((300, 4))])
def test_vectors_without_variance_have_a_graph(tmp_path: Path, rows: Float32) -> None:
    rows = rows.astype(np.float32)
    (walk,) = graph_of(tmp_path, rows).search(rows[:1], 3)
    assert len(walk) == min(3, len(rows))


def test_a_missing_or_damaged_graph_is_one_line(tmp_path: Path, vectors: Float32) -> None:
    NearGraph.build(tmp_path, vectors)
    with pytest.raises(IndexMissingError, match=r"expected a graph of \(7, 12\).*\(2000, 12\)"):
        NearGraph.open(tmp_path, vectors[:7])
    (tmp_path / GRAPH_NAME).write_bytes(b"no graph at all")
    with pytest.raises(IndexMissingError, match="no graph of Faiss; build") as caught:
        NearGraph.open(tmp_path, vectors)
    assert "\n" not in str(caught.value)
    (tmp_path / GRAPH_NAME).unlink()
    with pytest.raises(IndexMissingError, match="is missing"):
        NearGraph.open(tmp_path, vectors)
