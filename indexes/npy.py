"""Plain .npy files: written row by row in bounded memory, opened memory-mapped and checked."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import DTypeLike, NDArray

from dupmae.errors import IndexMissingError
from dupmae.files import publish


class NpyWriter:
    """Appends rows to a .npy file, which appears under its name when closed.

    The header names the number of rows but stands first; NumPy pads it so that this number may
    grow in place, and it is written again at the end.
    """

    def __init__(self, path: Path, dtype: DTypeLike, row_shape: tuple[int, ...] = ()) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._rows = 0
        self._file = self._partial.open("wb")
        self._write_header()

    def append(self, rows: NDArray[Any]) -> None:
        """Add `rows` (n, *row_shape) of the file's dtype."""
        if rows.dtype != self._dtype or rows.shape[1:] != self._row_shape:
            raise ValueError(
                f"expected rows of {self._row_shape} {self._dtype}, "
                f"found {rows.shape[1:]} {rows.dtype}"
            )
        self._file.write(np.ascontiguousarray(rows).data)
        self._rows += len(rows)

    def close(self) -> None:
        """Write the true number of rows and give the file its name, safe on the disk."""
        data_start = self._data_start
        self._file.seek(0)
        self._write_header()
        assert self._data_start == data_start, "the .npy header grew over the data"
        self._file.close()
        publish(self._partial, self._path)

    def discard(self) -> None:
        """Give up: leave no unfinished file; nothing happens once closed."""
        with suppress(OSError):  # on a full disk, closing fails to write what is buffered
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def _write_header(self) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._rows, *self._row_shape),
        }
        write_array_header_1_0(self._file, header)
        self._data_start = self._file.tell()


def open_npy(path: Path, dtype: DTypeLike, ndim: int) -> NDArray[Any]:
    """Map a .npy file into memory, read-only.

    Raises:
        IndexMissingError: if the file is missing, cut short, too long, or holds something else.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise IndexMissingError(f"{path} is missing; build the index again") from None
    except (OSError, ValueError, EOFError) as error:
        raise IndexMissingError(f"{path} is damaged ({error}); build the index again") from error
    if array.dtype != np.dtype(dtype) or array.ndim != ndim:
        raise IndexMissingError(
            f"{path}: expected {ndim} dimensions of {np.dtype(dtype)}, "
            f"found {array.ndim} of {array.dtype}; build the index again"
        )
    if not isinstance(array, np.memmap) or not array.flags.c_contiguous:
        raise IndexMissingError(f"{path} is no plain row-wise array; build the index again")
    expected, found = array.offset + array.nbytes, path.stat().st_size
    if expected != found:
        raise IndexMissingError(
            f"{path}: expected {expected} bytes, found {found}; build the index again"
        )
    return np.asarray(array)  # the same memory without memmap's slow indexing
