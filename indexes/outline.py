"""Dense vectors in brief: an upper bound of ⟨q, d⟩ from an eighth of the bytes of d, for proofs.

Documents' vectors vary most along few directions. `directions` P (dim, 192) holds the 192 of most
variance (in a sample), in falling order; a document is coded by its products with them, y = Pᵀd,
as whole numbers c of one byte: 64 in its head, 128 in its middle, each y rounded to steps s. What
codes leave out is e = d − P·s·c, and with u = Pᵀq

    ⟨q, d⟩ = ⟨u, s·c⟩ + ⟨q, e⟩,   ⟨q, e⟩ = ⟨q − Pu, e⟩ + ⟨u, Pᵀe⟩ ≤ ‖q − Pu‖·‖e‖ + ‖u‖·‖Pᵀe‖

whatever P is: that its columns are at right angles makes bounds tight, not true. ‖e‖ is kept for
each document in one byte, rounded up, and of ‖Pᵀe‖, which is the rounding of codes, the largest.
The same holds of the head alone. So there are bounds of falling width: a document whose first is
too low costs 65 bytes, few need the second, and fewer ⟨q, d⟩ itself, in float32.

A folder holds `directions.npy` (dim, 192) float32, zeros where dim < 192; `heads.npy` (N, 64) and
`middles.npy` (N, 128) int8; `rests.npy` (N, 2) uint8, ‖e‖ of the head alone and of both, in steps;
and `scale.npy` (8,) float64, see `_Scale`.

Source: coarse-to-fine bounds by Cauchy and Schwarz's inequality, as in Teflioudi and Gemulla 2016
(LEMP, ACM TODS 42:1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dupmae.errors import IndexMissingError
from dupmae.indexes.kernels import HEAD, MIDDLE, Codes, Int8, Int16, QueryCodes
from dupmae.indexes.npy import NpyFiles, closing_npy, open_npy, release_pages
from dupmae.types import Float32, Float64

_PARTS = (slice(0, HEAD), slice(HEAD, HEAD + MIDDLE))
_SAMPLE = 16_384
"""Documents, from all over, that directions are taken from."""
_BLOCK = 4096
"""Documents coded at a time."""
_LARGEST_CODE = 127
_LARGEST_REST = 255
_LARGEST_PRODUCT = 2**24
"""Products of codes up to this are exact in float32."""
_ROUNDING = 1e-9
"""Relative: far above what sums of some hundred float64 products lose, far below any bound."""

_CANCELLED = 1e-13
_UNIT_FLOAT32 = 2.0**-24
"""A sum of n float32 products is off by less than 1.1·n times this, and ‖q‖·‖d‖, in any order."""
_SMALLEST_FLOAT32 = float(np.finfo(np.float32).tiny)
_LARGEST_FLOAT32 = 1e37
_SMALLEST = 1e-300
"""Far above what products too small for float64 lose."""

_FILES = {
    "directions": (np.float32, 2),
    "heads": (np.int8, 2),
    "middles": (np.int8, 2),
    "rests": (np.uint8, 2),
    "scale": (np.float64, 1),
}
"""Dtype and dimensions of each .npy file."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """What codes stand for, and the largest of some lengths over all documents."""

    head_step: float
    middle_step: float
    rest_step: float
    largest_head: float
    """‖s·c‖ of the head."""
    largest_middle: float
    head_error: float
    """‖Pᵀe‖ over the head's directions, of the head alone."""
    error: float
    """‖Pᵀe‖ of both."""
    largest: float
    """‖d‖."""


class DenseOutline:
    """Bounds of ⟨q, d⟩ for all documents; nothing of it changes, so any threads may share it."""

    def __init__(self, directions: Float32, codes: Codes, scale: _Scale) -> None:
        self._directions = directions.astype(np.float64)
        self.codes = codes
        self._scale = scale

    @classmethod
    def build(cls, folder: Path, dense: Float32) -> None:
        """Code vectors (N, dim), which may be memory-mapped; reads all twice.

        Memory is bounded by a block and 16 bytes a document.

        Raises:
            OSError: if the disk is full or fails.
        """
        folder.mkdir(parents=True, exist_ok=True)
        directions = _directions(dense)
        steps = _steps(dense, directions)
        lengths, scale = _write_codes(folder, dense, directions, steps)
        rest_step = _positive(float(lengths.max(initial=0.0))) / _LARGEST_REST
        rests = np.ceil(lengths / rest_step).clip(0, _LARGEST_REST).astype(np.uint8)
        for name, array in {
            "rests": rests,
            "scale": np.array([*steps, rest_step, *scale]),
            "directions": directions,
        }.items():
            with closing_npy(folder / f"{name}.npy", array.dtype, array.shape[1:]) as file:
                file.append(array)

    @classmethod
    def open(cls, folder: Path, dense: Float32) -> DenseOutline:
        """Map the files of a folder that was built of vectors (N, dim).

        Raises:
            IndexMissingError: if a file is missing or damaged, or two do not fit together.
        """
        files = {name: open_npy(folder / f"{name}.npy", *kind) for name, kind in _FILES.items()}
        documents, dim = dense.shape
        for name, shape in {
            "directions": (dim, HEAD + MIDDLE),
            "heads": (documents, HEAD),
            "middles": (documents, MIDDLE),
            "rests": (documents, 2),
            "scale": (len(_Scale.__dataclass_fields__),),
        }.items():
            if files[name].shape != shape:
                raise IndexMissingError(
                    f"{folder / name}.npy: expected the shape {shape}, found {files[name].shape}; "
                    "build the index again"
                )
        codes = Codes(files["heads"], files["middles"], files["rests"], dense)
        return cls(files["directions"], codes, _Scale(*files["scale"].tolist()))

    def __len__(self) -> int:
        return len(self.codes.heads)

    def ceiling(self, query: Float32) -> float:
        """Return what no ⟨q, d⟩ is above: ‖q‖ times the length of the longest document."""
        return _length(query.astype(np.float64)) * self._scale.largest * (1 + _ROUNDING)

    def query(
        self, query: Float32, weight: float, sum_unit: float, largest_sum: float
    ) -> QueryCodes:
        """Return what bounds the score `weight`·⟨q, d⟩ + s, s being `sum_unit` · a document's sum.

        Args:
            query: (dim,) float32, finite.
            weight: ≥ 0.
            sum_unit: ≥ 0.
            largest_sum: no document's s is above it.
        """
        q, scale = query.astype(np.float64), self._scale
        u = q @ self._directions
        head, head_unit, head_error = _coded(u[_PARTS[0]])
        middle, middle_unit, middle_error = _coded(u[_PARTS[1]])
        rests = [q - self._directions[:, :end] @ u[:end] for end in (HEAD, HEAD + MIDDLE)]
        length = _length(q)
        slack = _ROUNDING * (weight * length * scale.largest + largest_sum) + _SMALLEST
        lost = head_error * scale.largest_head
        head_lost = _length(u[_PARTS[0]]) * scale.head_error + lost
        both_lost = _length(u) * scale.error + lost + middle_error * scale.largest_middle
        factors = [
            length * scale.largest,
            head_unit * scale.head_step,
            _length(rests[0]) * scale.rest_step,
            head_lost,
            middle_unit * scale.middle_step,
            _length(rests[1]) * scale.rest_step,
            both_lost,
            1.0,
            1.1 * len(q) * _UNIT_FLOAT32 * length * scale.largest + 2 * len(q) * _SMALLEST_FLOAT32,
        ]
        scales = np.array([sum_unit, *(weight * factor for factor in factors)])
        scales[[1, 4, 7, 9]] += slack
        is_safe = length * scale.largest < _LARGEST_FLOAT32
        vector = np.ascontiguousarray(query) if is_safe else None
        return QueryCodes(head, middle, vector, scales)


def _directions(dense: Float32) -> Float32:
    """Return P (dim, 192): eigenvectors of the second moments of a sample, largest first."""
    rows = np.unique(np.linspace(0, len(dense) - 1, min(_SAMPLE, len(dense))).astype(np.int64))
    sample = dense[rows].astype(np.float64)
    sample /= _positive(float(np.abs(sample).max(initial=0.0)))  # squares of any floats stay finite
    _, vectors = np.linalg.eigh(sample.T @ sample)
    directions = np.zeros((dense.shape[1], HEAD + MIDDLE), dtype=np.float32)
    kept = vectors[:, ::-1][:, : HEAD + MIDDLE]
    directions[:, : kept.shape[1]] = kept
    return directions


def _steps(dense: Float32, directions: Float32) -> tuple[float, float]:
    """Return the steps of head and middle, so that no document's code is cut by much."""
    largest = np.zeros(HEAD + MIDDLE)
    for block in _blocks(dense):
        np.maximum(largest, np.abs(block @ directions).max(axis=0), out=largest)
    head, middle = (_positive(float(largest[part].max())) / _LARGEST_CODE for part in _PARTS)
    return head, middle


def _write_codes(
    folder: Path, dense: Float32, directions: Float32, steps: tuple[float, float]
) -> tuple[Float64, list[float]]:
    """Write all codes; return the lengths of what they leave out, (N, 2), and `largest_head` on."""
    lengths, largest = [np.zeros((0, 2))], np.zeros(5)
    with NpyFiles(folder) as files:
        heads = files.begin("heads.npy", np.int8, (HEAD,))
        middles = files.begin("middles.npy", np.int8, (MIDDLE,))
        for block in _blocks(dense):
            coded = _Coded.of(block.astype(np.float64), directions.astype(np.float64), steps)
            heads.append(coded.codes[:, _PARTS[0]])
            middles.append(coded.codes[:, _PARTS[1]])
            lengths.append(coded.rests)
            np.maximum(largest, coded.largest, out=largest)
    return np.concatenate(lengths), largest.tolist()


@dataclass(frozen=True, slots=True, eq=False)
class _Coded:
    """Some documents' codes (n, 192), their `rests` (n, 2), and the largest lengths (5,)."""

    codes: Int8
    rests: Float64
    largest: Float64

    @classmethod
    def of(cls, block: Float64, directions: Float64, steps: tuple[float, float]) -> _Coded:
        """Code documents (n, dim).

        ‖e‖² = ‖d‖² − 2⟨s·c, y⟩ + ‖P·s·c‖² spares one more product of matrices; what that cancels,
        some 1e-15 of ‖d‖², is put on top.
        """
        products, moments = block @ directions, directions.T @ directions
        widths = np.repeat(steps, (HEAD, MIDDLE))
        codes = np.rint(products / widths).clip(-_LARGEST_CODE, _LARGEST_CODE)
        squares, rests, errors = _squares(block), [], []
        for end in (HEAD, HEAD + MIDDLE):
            y, coded = products[:, :end], (widths * codes)[:, :end]
            shared = coded @ moments[:end, :end]
            left = squares + np.einsum("ij,ij->i", coded, shared - 2 * y)
            rests.append(np.sqrt(np.maximum(left, 0) + _CANCELLED * squares))
            errors.append(_lengths(y - shared).max())
        seen = [_lengths((widths * codes)[:, part]).max() for part in _PARTS]
        return cls(
            codes.astype(np.int8),
            np.stack(rests, axis=1),
            np.array([*seen, *errors, np.sqrt(squares.max())]),
        )


def _blocks(dense: Float32) -> Iterator[Float32]:
    for start in range(0, len(dense), _BLOCK):
        yield dense[start : start + _BLOCK]
        release_pages(dense)


def _coded(u: Float64) -> tuple[Int16, float, float]:
    """Return whole numbers k for products of a query, a unit, and ‖u − unit·k‖."""
    most = _LARGEST_PRODUCT // (_LARGEST_CODE * len(u))
    unit = _positive(float(np.abs(u).max())) / most
    numbers = np.rint(u / unit)
    return numbers.astype(np.int16), unit, _length(u - unit * numbers)


def _squares(rows: Float64) -> Float64:
    """Return ‖row‖² (n,), rounded up."""
    squares: Float64 = np.einsum("ij,ij->i", rows, rows) * (1 + _ROUNDING)
    return squares


def _lengths(rows: Float64) -> Float64:
    """Return ‖row‖ (n,), rounded up."""
    lengths: Float64 = np.sqrt(_squares(rows))
    return lengths


def _length(vector: Float64) -> float:
    return float(_lengths(vector[None])[0])


def _positive(number: float) -> float:
    return number or 1.0
