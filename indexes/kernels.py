"""The loops of every search, compiled or, more slowly, in NumPy.

`kernels.c` is compiled when the package is installed, if there is a C compiler. Both ways give the
same numbers: sums are whole numbers below 2^31, products of codes below 2^24, and exact scores are
float64 sums in one order. (Bounds by products in float32 may differ by rounding, for which they
leave room.)
"""

from __future__ import annotations

import ctypes
import os
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from dupmae.types import Bool, Float32, Float64, Int32, Int64, SparseVectors

Int8 = NDArray[np.int8]
Int16 = NDArray[np.int16]
UInt8 = NDArray[np.uint8]
T = TypeVar("T")

HEAD, MIDDLE = 64, 128
"""Codes of a document that are looked at first, and next; `kernels.c` knows them too."""

_WORTH_A_THREAD = 1 << 17
"""Documents: to wake a thread for fewer takes longer than it saves."""
_BLOCK = 1 << 14
"""Documents that NumPy looks at together."""
_GATHERED = 1024
"""Documents that NumPy scores together: 1024 × 384 float64 (3 MiB) still fit a cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """A query's terms in an inverted index (see `inverted.py`).

    Each term has a factor, int32, and either a row (its number ≥ 0; else −1) or the postings from
    `starts` to `ends`, whose ordinals rise.
    """

    factors: Int32
    row_of_term: Int64
    starts: Int64
    ends: Int64
    rows: UInt8
    ordinals: Int32
    impacts: UInt8


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """Documents' dense vectors in brief (see `outline.py`) and as they are.

    `heads` (N, HEAD) and `middles` (N, MIDDLE) int8, `rests` (N, 2) uint8; `vectors` (N, dim).
    """

    heads: Int8
    middles: Int8
    rests: UInt8
    vectors: Float32


@dataclass(frozen=True, slots=True, eq=False)
class QueryCodes:
    """A query against codes, `head` (HEAD,) and `middle` (MIDDLE,), and what to multiply by.

    `vector` (dim,) is the query itself; None if float32 may not hold its products.

    With s a document's sum, h, m and v its products with `head`, `middle` and `vector`, and r its
    rests, the score is at most scale[0]·s + each of: scale[1]; scale[2]·h + scale[3]·r₀ + scale[4];
    scale[2]·h + scale[5]·m + scale[6]·r₁ + scale[7]; scale[8]·v + scale[9].
    """

    head: Int16
    middle: Int16
    vector: Float32 | None
    scale: Float64


def add_up(postings: Postings, sums: Int32, low: int, high: int) -> None:
    """Write Σ factor · impact of each document from `low` to `high` − 1 to its place in `sums`."""
    if _COMPILED is None:
        _add_up(postings, sums, low, high)
        return
    starts = postings.starts.copy()  # moved on by the loop
    _COMPILED.add_up(
        *(_pointer(sums), low, high, len(sums), len(starts), _pointer(postings.factors)),
        *(_pointer(postings.row_of_term), _pointer(postings.rows), _pointer(starts)),
        *(_pointer(postings.ends), _pointer(postings.ordinals), _pointer(postings.impacts)),
    )


def reach(
    query: QueryCodes,
    codes: Codes,
    sums: Int32,
    allowed: Bool | None,
    least: float,
    low: int,
    high: int,
) -> tuple[Int64, Float64]:
    """Return the allowed documents from `low` to `high` − 1 that may score `least` or more.

    Args:
        query: what to bound by.
        codes: of N documents.
        sums: (N,) of all documents.
        allowed: (N,); all if None.
        least: −inf for all.
        low: the range's first.
        high: one behind its last.

    Returns:
        Ordinals (m,), rising, and the last of the bounds of each, (m,).
    """
    if _COMPILED is None:
        return _reach(query, codes, sums, allowed, least, low, high)
    found, bounds = np.empty(high - low, dtype=np.int64), np.empty(high - low)
    count = _COMPILED.reach(
        *(low, high, None if allowed is None else _pointer(allowed), _pointer(sums)),
        *(_pointer(codes.heads), _pointer(codes.middles), _pointer(codes.rests)),
        *(_pointer(codes.vectors), codes.vectors.shape[1]),
        *(_pointer(query.head), _pointer(query.middle)),
        *(None if query.vector is None else _pointer(query.vector), _pointer(query.scale), least),
        *(_pointer(found), _pointer(bounds)),
    )
    return found[:count].copy(), bounds[:count].copy()


def score_dense(vectors: Float32, query: Float64, ordinals: Int64) -> Float64:
    """Return ⟨vectors[ordinal], query⟩ (m,), each summed as NumPy sums a row.

    Args:
        vectors: (N, dim).
        query: (dim,) float32 values.
        ordinals: (m,), all within N.
    """
    assert vectors.dtype == np.float32
    if _COMPILED is None:
        return _score_dense(vectors, query, ordinals)
    scores = np.empty(len(ordinals))
    _COMPILED.score_dense(
        *(len(ordinals), _pointer(ordinals), _pointer(vectors), vectors.shape[1]),
        *(_pointer(query), _pointer(scores)),
    )
    return scores


def score_sparse(vectors: SparseVectors, query: Float64, ordinals: Int64) -> Float64:
    """Return Σ query[term] · weight (m,), added one by one in the order of a vector's terms.

    Args:
        vectors: N of them.
        query: (n,) float32 values ≥ 0; terms from n on have 0.
        ordinals: (m,), all within N.
    """
    if _COMPILED is None:
        return _score_sparse(vectors, query, ordinals)
    scores = np.empty(len(ordinals))
    _COMPILED.score_sparse(
        *(len(ordinals), _pointer(ordinals), _pointer(vectors.indptr), _pointer(vectors.terms)),
        *(_pointer(vectors.weights), _pointer(query), len(query), _pointer(scores)),
    )
    return scores


def row_positions(vectors: SparseVectors, ordinals: Int64) -> tuple[Int64, Int64]:
    """Return, for every non-zero of the rows asked for, its place in `ordinals` and in `terms`."""
    starts = vectors.indptr[ordinals]
    lengths = vectors.indptr[ordinals + 1] - starts
    ends = np.cumsum(lengths)
    owners = np.repeat(np.arange(len(ordinals), dtype=np.int64), lengths)
    positions = np.arange(len(owners), dtype=np.int64) + np.repeat(
        starts - (ends - lengths), lengths
    )
    return owners, positions


def in_ranges(documents: int, action: Callable[[int, int], T]) -> list[T]:
    """Do something with ranges, [low, high), that cover all documents, in a thread for each.

    As many threads as Faiss takes, which OMP_NUM_THREADS limits; one where there is little to do.
    """
    threads = min(faiss.omp_get_max_threads(), max(1, documents // _WORTH_A_THREAD))
    borders = [documents * number // threads for number in range(threads + 1)]
    if threads == 1:
        return [action(0, documents)]
    others = [_threads().submit(action, *pair) for pair in pairwise(borders[:-1])]
    last = action(borders[-2], borders[-1])
    return [*(other.result() for other in others), last]


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="dupmae")


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
    os.register_at_fork(after_in_child=_threads.cache_clear)


def _add_up(postings: Postings, sums: Int32, low: int, high: int) -> None:
    sums[low:high] = 0
    terms = zip(
        *(postings.factors, postings.row_of_term.tolist()),
        *(postings.starts.tolist(), postings.ends.tolist()),
        strict=True,
    )
    for factor, row, start, end in terms:
        if row >= 0:
            sums[low:high] += np.multiply(postings.rows[row, low:high], factor, dtype=np.int32)
            continue
        first, last = start + np.searchsorted(postings.ordinals[start:end], [low, high])
        products = np.multiply(postings.impacts[first:last], factor, dtype=np.int32)
        # Cast first: `at` would cast too, but more slowly. What damage made of ordinals is clipped.
        ordinals = postings.ordinals[first:last].astype(np.intp).clip(low, high - 1)
        np.add.at(sums, ordinals, products)


def _reach(
    query: QueryCodes,
    codes: Codes,
    sums: Int32,
    allowed: Bool | None,
    least: float,
    low: int,
    high: int,
) -> tuple[Int64, Float64]:
    found, bounds = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for start in range(low, high, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, high))
        rows = rows if allowed is None else rows[allowed[rows]]
        bound = sparse = query.scale[0] * sums[rows]
        kept = ~(bound + query.scale[1] < least)
        rows, sparse = rows[kept], sparse[kept]
        bound = sparse + query.scale[2] * _products(codes.heads[rows], query.head)
        kept = ~(bound + query.scale[3] * codes.rests[rows, 0] + query.scale[4] < least)
        rows, bound, sparse = rows[kept], bound[kept], sparse[kept]
        bound += query.scale[5] * _products(codes.middles[rows], query.middle)
        bound += query.scale[6] * codes.rests[rows, 1] + query.scale[7]
        if query.vector is not None:
            kept = ~(bound < least)
            rows, sparse = rows[kept], sparse[kept]
            products = (codes.vectors[rows] @ query.vector).astype(np.float64)
            bound = sparse + query.scale[8] * products + query.scale[9]
        kept = ~(bound < least)
        found.append(rows[kept])
        bounds.append(bound[kept])
    return np.concatenate(found), np.concatenate(bounds)


def _products(codes: Int8, query: Int16) -> Float64:
    """Return whole numbers (m,); below 2^24 they are exact in float32, in which BLAS is fast."""
    return (codes.astype(np.float32) @ query.astype(np.float32)).astype(np.float64)


def _score_dense(vectors: Float32, query: Float64, ordinals: Int64) -> Float64:
    scores = np.empty(len(ordinals))
    for start in range(0, len(ordinals), _GATHERED):
        block = slice(start, start + _GATHERED)
        np.add.reduce(vectors[ordinals[block]] * query, axis=1, out=scores[block])
    return scores


def _score_sparse(vectors: SparseVectors, query: Float64, ordinals: Int64) -> Float64:
    scores = np.empty(len(ordinals))
    for start in range(0, len(ordinals), _GATHERED):
        block = ordinals[start : start + _GATHERED]
        owners, positions = row_positions(vectors, block)
        terms = vectors.terms[positions]
        known = np.flatnonzero(terms < len(query))
        products = query[terms[known]] * vectors.weights[positions[known]]
        # bincount adds in the order given.
        scores[start : start + len(block)] = np.bincount(
            owners[known], weights=products, minlength=len(block)
        )
    return scores


def _pointer(array: NDArray[np.generic]) -> int:
    assert array.flags.c_contiguous
    address: int = array.__array_interface__["data"][0]  # `array.ctypes` takes three times as long
    return address


def _load() -> ctypes.CDLL | None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    try:
        library = ctypes.CDLL(str(Path(__file__).with_name(f"_kernels{suffix}")))
    except OSError:  # not compiled, or for another system
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.add_up.argtypes = [pointer, *[number] * 4, *[pointer] * 7]
    library.add_up.restype = None
    query: list[Any] = [number, number, *[pointer] * 6, number, *[pointer] * 4]
    library.reach.argtypes = [*query, ctypes.c_double, pointer, pointer]
    library.reach.restype = number
    library.score_dense.argtypes = [number, pointer, pointer, number, pointer, pointer]
    library.score_dense.restype = None
    library.score_sparse.argtypes = [number, *[pointer] * 5, ctypes.c_uint32, pointer]
    library.score_sparse.restype = None
    return library


_COMPILED = _load()
