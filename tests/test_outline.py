from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from vector_strategies import dense_vectors

from dupmae.errors import IndexMissingError
from dupmae.indexes.exact import ExactDense
from dupmae.indexes.kernels import reach
from dupmae.indexes.outline import DenseOutline
from dupmae.types import Float32, Float64

FILES = ["directions", "heads", "middles", "rests", "scale"]


def outline_of(folder: Path, vectors: Float32) -> DenseOutline:
    DenseOutline.build(folder, vectors)
    return DenseOutline.open(folder, vectors)


def bounds(
    outline: DenseOutline, query: Float32, weight: float = 1.0, *, by_codes: bool = True
) -> Float64:
    """Return the last bound of every document, or the last by codes; none falls out before."""
    coded = outline.query(query, weight, 0.0, 0.0)
    coded = replace(coded, vector=None) if by_codes else coded
    sums = np.zeros(len(outline), dtype=np.int32)
    found, last = reach(coded, outline.codes, sums, None, -np.inf, 0, len(outline))
    assert found.tolist() == list(range(len(outline)))
    return last


def truth(vectors: Float32, query: Float32) -> Float64:
    (ranking,) = ExactDense(vectors).search(query[None], len(vectors))
    return ranking.scores[np.argsort(ranking.ordinals)]


def like_text(documents: int, dim: int, seed: int) -> Float32:
    """Return unit vectors most of whose variance lies along few directions."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(documents, dim)) * (np.arange(dim) + 4.0) ** -0.8
    turned = vectors @ np.linalg.qr(np.random.default_rng(1).normal(size=(dim, dim)))[0]
    return (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=examples(50), deadline=None)
@given(
    dense_vectors(st.integers(1, 30), 5),
    arrays(np.float32, 5, elements=st.floats(-1e6, 1e6, width=32)),
    st.sampled_from([1e-100, 0.3, 1.0, 1e100]),
)
def test_no_document_scores_more_than_its_bounds(
    vectors: Float32, query: Float32, weight: float
) -> None:
    with TemporaryDirectory() as folder:
        outline = outline_of(Path(folder), vectors)
        scores = weight * truth(vectors, query)
        assert np.all(scores <= bounds(outline, query, weight))
        assert np.all(scores <= bounds(outline, query, weight, by_codes=False))
        coded, sums = outline.query(query, weight, 0.0, 0.0), np.zeros(len(vectors), np.int32)
        for ordinal, score in enumerate(scores.tolist()):
            found, _ = reach(coded, outline.codes, sums, None, score, 0, len(vectors))
            assert ordinal in found


@pytest.mark.parametrize("dim", [1, 64, 100, 384])
def test_bounds_of_vectors_like_those_of_texts_are_true_and_tight(dim: int, tmp_path: Path) -> None:
    vectors, queries = like_text(5000, dim, seed=0), like_text(10, dim, seed=2)
    outline = outline_of(tmp_path, vectors)
    for query in queries:
        excess = bounds(outline, query) - truth(vectors, query)
        assert excess.min() >= 0
        assert excess.max() < 0.12
        excess = bounds(outline, query, by_codes=False) - truth(vectors, query)
        assert excess.min() >= 0
        assert excess.max() < 1e-4


def test_an_outlier_and_a_document_of_zeros_have_true_bounds(tmp_path: Path) -> None:
    vectors = like_text(300, 384, seed=0)
    vectors[7] *= 1e30
    vectors[8] = 0
    outline = outline_of(tmp_path, vectors)
    for query in (*like_text(5, 384, seed=3), vectors[7], vectors[8]):
        for by_codes in (True, False):
            assert np.all(truth(vectors, query) <= bounds(outline, query, by_codes=by_codes))


def test_vectors_without_variance_or_documents_have_outlines(tmp_path: Path) -> None:
    zeros = outline_of(tmp_path / "zeros", np.zeros((3, 4), np.float32))
    assert np.all(np.abs(bounds(zeros, np.ones(4, np.float32))) < 1e-6)
    none = outline_of(tmp_path / "none", np.zeros((0, 4), np.float32))
    assert bounds(none, np.ones(4, np.float32)).tolist() == []


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_of_another_store_is_named(name: str, tmp_path: Path) -> None:
    vectors = like_text(20, 8, seed=0)
    DenseOutline.build(tmp_path / "a", vectors)
    path = tmp_path / "a" / f"{name}.npy"
    array = np.load(path)
    path.unlink()
    with pytest.raises(IndexMissingError, match=rf"{name}\.npy is missing"):
        DenseOutline.open(tmp_path / "a", vectors)
    np.save(path, np.concatenate([array, array]).T.copy() if array.ndim > 1 else array[1:])
    with pytest.raises(IndexMissingError, match=r"\.npy: expected the shape .* build the index"):
        DenseOutline.open(tmp_path / "a", vectors)
