"""Plain .npy files: written row by row in bounded memory, opened memory-mapped and checked."""

from __future__ import annotations

import ast
import math
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.lib.format import read_magic, write_array_header_1_0
from numpy.typing import DTypeLike, NDArray

from dupmae.errors import IndexMissingError
from dupmae.files import publish

BAD_HEADER = (
    OSError, ValueError, TypeError, OverflowError, EOFError, SyntaxError, MemoryError,
    RecursionError,
)  # fmt: skip
"""What is raised where a .npy file's header is damaged, which is a literal of Python."""
_LONGEST_HEADER = 10_000
"""Bytes; NumPy takes no longer one either."""
_HEADER = re.compile(
    r"\{'descr': '(?P<dtype>[<>|=][a-z]\d+)', 'fortran_order': False, "
    r"'shape': \((?P<shape>(\d+, ?)*\d*)\), \}\s*"
)
"""As NumPy writes it."""


class NpyWriter:
    """Appends rows to a .npy file, which appears under its name when closed.

    The header names the number of rows but stands first; NumPy pads it so that this number may
    grow in place, and it is written again at the end.

    Args:
        path: of the file.
        dtype: of what it holds.
        row_shape: of one row; () for a file of one dimension.
        keep: rows of an earlier, unfinished or finished, file of that name to go on after; what
            it holds behind them is dropped.

    Raises:
        IndexMissingError: if there are fewer rows than are to be kept.
    """

    def __init__(
        self, path: Path, dtype: DTypeLike, row_shape: tuple[int, ...] = (), *, keep: int = 0
    ) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._rows = keep
        if keep and path.exists() and not self._partial.exists():
            path.replace(self._partial)
        try:
            self._file = self._partial.open("r+b" if keep else "wb")
        except FileNotFoundError:
            raise IndexMissingError(f"{self._partial} is missing; build the index again") from None
        try:
            self._write_header()
            if keep:
                self._cut()
        except BaseException:
            self.abandon()
            raise

    def append(self, rows: NDArray[Any]) -> None:
        """Add `rows` (n, *row_shape) of the file's dtype."""
        if rows.dtype != self._dtype or rows.shape[1:] != self._row_shape:
            raise ValueError(
                f"expected rows of {self._row_shape} {self._dtype}, "
                f"found {rows.shape[1:]} {rows.dtype}"
            )
        self._file.write(np.ascontiguousarray(rows).data)
        self._rows += len(rows)

    def sync(self) -> None:
        """Make what was appended safe on the disk, so that `keep` finds it after a power cut."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def written(self) -> NDArray[Any]:
        """Map all rows so far into memory, read-only."""
        self._file.flush()
        if self._rows == 0:
            return np.zeros((0, *self._row_shape), self._dtype)
        shape = (self._rows, *self._row_shape)
        return np.asarray(np.memmap(self._partial, self._dtype, "r", self._data_start, shape))

    def close(self) -> None:
        """Write the true number of rows and give the file its name, safe on the disk."""
        data_start = self._data_start
        self._file.seek(0)
        self._write_header()
        assert self._data_start == data_start, "the .npy header grew over the data"
        self._file.close()
        publish(self._partial, self._path)

    def abandon(self) -> None:
        """Leave the unfinished file as it is; nothing happens once closed."""
        with suppress(OSError):  # on a full disk, closing fails to write what is buffered
            self._file.close()

    def _cut(self) -> None:
        size = self._rows * self._dtype.itemsize * math.prod(self._row_shape)
        end, found = self._data_start + size, self._partial.stat().st_size
        if found < end:
            raise IndexMissingError(
                f"{self._partial}: expected {end} bytes or more, found {found}; "
                "build the index again"
            )
        self._file.truncate(end)
        self._file.seek(end)

    def _write_header(self) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._rows, *self._row_shape),
        }
        write_array_header_1_0(self._file, header)
        self._data_start = self._file.tell()


class NpyFiles:
    """Growing .npy files of one folder, which are made safe and finished together.

    The base of writers with several such files, which would else all hand its methods on. As a
    context manager it finishes them at the end; if an error passes through, or one of them cannot
    be begun, it leaves all unfinished, to be kept or removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: list[NpyWriter] = []

    def begin(
        self, name: str, dtype: DTypeLike, row_shape: tuple[int, ...] = (), *, keep: int = 0
    ) -> NpyWriter:
        """Begin a file, or go on after rows of an earlier one, as `NpyWriter` says."""
        try:
            writer = NpyWriter(self._folder / name, dtype, row_shape, keep=keep)
        except BaseException:
            self.abandon()
            raise
        self._writers.append(writer)
        return writer

    def begin_borders(self, name: str, *, keep: int = 0) -> NpyWriter:
        """Begin a file of 0 and then, of each row, where what belongs to it ends; int64.

        An earlier one is gone on with after `keep` rows.
        """
        writer = self.begin(name, np.int64, keep=keep + 1 if keep else 0)
        if not keep:
            writer.append(np.zeros(1, dtype=np.int64))
        return writer

    def sync(self) -> None:
        """Make all rows so far safe on the disk, so that `keep` finds them again."""
        for writer in self._writers:
            writer.sync()

    def close(self) -> None:
        """Finish all files, safe on the disk."""
        for writer in self._writers:
            writer.close()

    def abandon(self) -> None:
        """Leave unfinished files as they are; nothing happens once closed."""
        for writer in self._writers:
            writer.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.abandon()


@contextmanager
def closing_npy(
    path: Path, dtype: DTypeLike, row_shape: tuple[int, ...] = ()
) -> Iterator[NpyWriter]:
    """Begin a file that appears at the end, or not at all if an error passes through."""
    with NpyFiles(path.parent) as files:
        yield files.begin(path.name, dtype, row_shape)


def open_npy(path: Path, dtype: DTypeLike, ndim: int) -> NDArray[Any]:
    """Map a .npy file into memory, read-only.

    Raises:
        IndexMissingError: if the file is missing, cut short, too long, or holds something else.
    """
    try:
        with path.open("rb") as file:
            held, shape, start = _read_header(file)
            found = os.fstat(file.fileno()).st_size
            if held != np.dtype(dtype) or len(shape) != ndim:
                raise IndexMissingError(
                    f"{path}: expected {ndim} dimensions of {np.dtype(dtype)}, "
                    f"found {len(shape)} of {held}; build the index again"
                )
            expected = start + held.itemsize * math.prod(shape)
            if expected != found:
                raise IndexMissingError(
                    f"{path}: expected {expected} bytes, found {found}; build the index again"
                )
            array = np.memmap(file, held, "r", start, shape)
    except FileNotFoundError:
        raise IndexMissingError(f"{path} is missing; build the index again") from None
    except BAD_HEADER as error:
        raise IndexMissingError(f"{path} is damaged ({error}); build the index again") from error
    return np.asarray(array)  # the same memory without memmap's slow indexing


def _read_header(file: BinaryIO) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return dtype, shape and where the data start; raise one of `BAD_HEADER` if it is damaged.

    NumPy reads it by Python's parser, which in Python 3.11 fails now and then where two threads
    use it at once ("AST constructor recursion depth mismatch"): readers that reload do so.
    """
    match = _HEADER.fullmatch(_header_text(file))
    if match is None:
        raise ValueError("its header is not that of a plain row-wise array")
    shape = tuple(int(size) for size in match["shape"].split(",") if size.strip())
    return np.dtype(match["dtype"]), shape, file.tell()


def _header_text(file: BinaryIO) -> str:
    version = read_magic(file)
    length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    return file.read(length).decode("latin1")


def check_header(file: BinaryIO) -> None:
    """Raise one of `BAD_HEADER` unless the .npy header that comes next is a literal of Python.

    NumPy would read it once more as one of Python 2, warn, and raise other errors.
    """
    start = file.tell()
    ast.literal_eval(_header_text(file))
    file.seek(start)


def release_pages(array: NDArray[Any]) -> None:
    """Let go of the memory that what was read of a mapped file takes; it can be read again.

    The system would do so itself where memory is short, but counts it as this process's until
    then. A hint: without effect on other arrays, and where the system knows no such thing.
    """
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
