from __future__ import annotations

from dataclasses import astuple, replace
from itertools import pairwise

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from dupmae.indexes import kernels
from dupmae.indexes.kernels import (
    HEAD,
    MIDDLE,
    Codes,
    Postings,
    QueryCodes,
    add_up,
    reach,
    score_dense,
    score_sparse,
)
from dupmae.indexes.scores import dense_scores, sparse_scores
from dupmae.types import SparseVectors

DOCUMENTS = 40_000
"""More than two blocks of either loop."""

needs_compiled = pytest.mark.skipif(kernels._COMPILED is None, reason="kernels.c is not compiled")


def random_postings(rng: np.random.Generator) -> Postings:
    lists = [np.flatnonzero(rng.random(DOCUMENTS) < share) for share in (0.1, 0.001, 0.0, 0.05)]
    borders = np.cumsum([0, *map(len, lists)])
    ordinals = np.concatenate(lists).astype(np.int32)
    return Postings(
        factors=rng.integers(1, 1 << 20, 6).astype(np.int32),
        row_of_term=np.array([-1, 1, -1, -1, 0, -1]),
        starts=borders[[0, 0, 1, 2, 0, 3]],
        ends=borders[[1, 0, 2, 3, 0, 4]],
        rows=rng.integers(0, 256, (2, DOCUMENTS), dtype=np.uint8),
        ordinals=ordinals,
        impacts=rng.integers(1, 256, len(ordinals), dtype=np.uint8),
    )


def expected_sums(postings: Postings) -> np.ndarray:
    sums = np.zeros(DOCUMENTS, dtype=np.int64)
    for factor, row, start, end in zip(*astuple(postings)[:4], strict=True):
        if row >= 0:
            sums += factor * postings.rows[row].astype(np.int64)
        else:
            own = slice(start, end)
            sums[postings.ordinals[own]] += factor * postings.impacts[own].astype(np.int64)
    return sums


@pytest.fixture(params=["compiled", "NumPy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "NumPy":
        monkeypatch.setattr(kernels, "_COMPILED", None)
    elif kernels._COMPILED is None:
        pytest.skip("kernels.c is not compiled")
    return str(request.param)


def test_sums_are_those_of_all_rows_and_lists_in_any_ranges(way: str) -> None:
    postings = random_postings(np.random.default_rng(0))
    for borders in ([0, DOCUMENTS], [0, 1, 16_384, 20_001, DOCUMENTS]):
        sums = np.full(DOCUMENTS, 7, dtype=np.int32)  # what was there does not count
        for low, high in pairwise(borders):
            add_up(postings, sums, low, high)
        assert np.array_equal(sums, expected_sums(postings))


def test_an_ordinal_that_damage_made_is_written_to_no_other_memory(way: str) -> None:
    postings = random_postings(np.random.default_rng(0))
    damaged = postings.ordinals.copy()
    damaged[[100, 200, 4010, -9]] = [-300, -DOCUMENTS - 300, DOCUMENTS + 300, -300]
    memory = np.zeros(3 * DOCUMENTS, dtype=np.int32)
    sums = memory[DOCUMENTS : 2 * DOCUMENTS]
    add_up(replace(postings, ordinals=damaged), sums, 0, DOCUMENTS)
    assert sums.any()
    sums[:] = 0
    assert not memory.any()


def random_scan(seed: int) -> tuple[QueryCodes, Codes, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    documents = int(rng.integers(0, 300))
    codes = Codes(
        rng.integers(-127, 128, (documents, HEAD), dtype=np.int8),
        rng.integers(-127, 128, (documents, MIDDLE), dtype=np.int8),
        rng.integers(0, 256, (documents, 2), dtype=np.uint8),
        rng.normal(size=(documents, 37)).astype(np.float32),
    )
    query = QueryCodes(
        rng.integers(-2064, 2065, HEAD).astype(np.int16),
        rng.integers(-1032, 1033, MIDDLE).astype(np.int16),
        rng.normal(size=37).astype(np.float32) if seed % 2 else None,
        rng.random(10) * [1e-9, 1, 1e-6, 1e-3, 1e-3, 1e-6, 1e-3, 1e-3, 0.1, 1],
    )
    return (
        query,
        codes,
        rng.integers(0, 1 << 31, documents).astype(np.int32),
        rng.random(documents) < 0.7,
    )


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([-np.inf, 0.0, 0.5, 1.0, 2.0, np.inf]), st.booleans())
@needs_compiled
def test_both_ways_find_the_same_documents_with_the_same_bounds(
    seed: int, least: float, masked: bool
) -> None:
    query, codes, sums, allowed = random_scan(seed)
    scan = (query, codes, sums, allowed if masked else None, least, 0, len(sums))
    found, bounds = reach(*scan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_COMPILED", None)
        expected, expected_bounds = reach(*scan)
    assert found.tolist() == expected.tolist()
    # The compiler may fuse a product with a sum, which spares a rounding.
    # Products with vectors are in float32.
    np.testing.assert_allclose(bounds, expected_bounds, 1e-14, atol=1e-5 if seed % 2 else 0)


def test_a_scan_names_all_of_whom_every_bound_reaches(way: str) -> None:
    query, codes, sums, allowed = random_scan(5)
    scale, (head, middle) = query.scale, (query.head.astype(int), query.middle.astype(int))
    first = scale[0] * sums + scale[1]
    second = scale[0] * sums + scale[2] * (codes.heads @ head)
    third = second + scale[5] * (codes.middles @ middle) + scale[6] * codes.rests[:, 1] + scale[7]
    second = second + scale[3] * codes.rests[:, 0] + scale[4]
    fourth = scale[0] * sums + scale[8] * (codes.vectors @ query.vector) + scale[9]
    bounds = np.stack([first, second, third, fourth])
    least = float(np.sort(bounds.min(axis=0))[-90:-88].mean())  # between two documents
    expected = np.flatnonzero(allowed & (bounds >= least).all(axis=0))

    found, _ = reach(query, codes, sums, allowed, least, 0, len(sums))

    assert 0 < len(found) < len(sums) / 2
    assert found.tolist() == expected.tolist()


def test_ranges_cover_all_documents_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_WORTH_A_THREAD", 10)
    monkeypatch.setattr(kernels.faiss, "omp_get_max_threads", lambda: 3)
    for documents, count in ((0, 1), (19, 1), (20, 2), (1000, 3)):
        ranges = kernels.in_ranges(documents, lambda low, high: (low, high))
        assert len(ranges) == count
        assert [n for low, high in ranges for n in range(low, high)] == list(range(documents))


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(0, 10**6), st.one_of(st.integers(1, 40), st.integers(100, 1100)))
@needs_compiled
def test_exact_scores_are_the_same_to_the_last_bit_in_both_ways(seed: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(9, dim)).astype(np.float32)
    rows = [np.flatnonzero(rng.random(dim) < share).astype(np.int32) for share in rng.random(9)]
    sparse = SparseVectors.from_rows([(row, rng.random(len(row)) + 0.1) for row in rows])
    query = rng.normal(size=dim).astype(np.float32).astype(np.float64)
    ordinals = rng.integers(0, 9, 20)
    for score, vectors, of in (
        (score_dense, dense, query),
        (score_sparse, sparse, np.abs(query[: int(rng.integers(1, dim + 1))])),
    ):
        found = score(vectors, of, ordinals)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "_COMPILED", None)
            patch.setattr(kernels, "_GATHERED", 7)
            assert score(vectors, of, ordinals).tolist() == found.tolist()


@pytest.mark.parametrize("ordinal", [-1, 3])
def test_a_document_that_is_not_there_is_not_scored(way: str, ordinal: int) -> None:
    asked = np.array([0, ordinal])
    one = np.ones(1, dtype=np.float32)
    sparse = SparseVectors.from_rows([(np.zeros(1, dtype=np.int32), one)] * 3)
    with pytest.raises(IndexError, match=f"below 3, found {ordinal}"):
        dense_scores(np.ones((3, 1), dtype=np.float32), one, asked)
    with pytest.raises(IndexError, match=f"below 3, found {ordinal}"):
        sparse_scores(sparse, np.zeros(1, dtype=np.int32), one, asked)
