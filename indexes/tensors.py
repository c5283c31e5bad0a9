"""Named arrays in one file, .safetensors or .npz: read memory-mapped, written block by block.

Both formats are handled here and not by their libraries, since those hold what they write in memory
as a whole, and NumPy maps no member of an .npz. Beside its arrays a file has settings, which are
strings: the metadata of a .safetensors file, the arrays without dimensions of an .npz.

Sources: https://github.com/huggingface/safetensors#format and the ZIP and .npy formats.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from dupmae.errors import DataError, UsageError
from dupmae.files import replacing
from dupmae.indexes.npy import BAD_HEADER, check_header

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
"""What NumPy has a type for."""
_LONGEST_HEADER = 100_000_000
"""What the safetensors library itself reads at most."""
_ZIP_HEADER = 30
"""Bytes of a ZIP member's own header before its name."""
_DAMAGES = (*BAD_HEADER, KeyError, AttributeError, zipfile.BadZipFile, NotImplementedError)
"""What reading raises where bytes are not what they should be."""


@dataclass(frozen=True, slots=True, eq=False)
class TensorFile:
    """What a file holds: `arrays` by name, memory-mapped and read-only, and `settings`."""

    path: Path
    arrays: Mapping[str, NDArray[Any]]
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An array to be written; its `blocks` (rows, *shape[1:]) add up to `shape`."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    blocks: Iterable[NDArray[Any]]


def open_tensors(path: Path) -> TensorFile:
    """Map the arrays of a file into memory.

    Raises:
        UsageError: if the name ends neither in .safetensors nor in .npz.
        DataError: if the file is missing, damaged, or an .npz with compressed members.
    """
    check_name(path)
    try:
        return _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    except FileNotFoundError:
        raise DataError(f"no file of vectors at {path}") from None
    except _DAMAGES as error:
        raise DataError(f"{path} is damaged, or no {path.suffix} file: {error}") from error


def write_tensors(path: Path, tensors: Sequence[Tensor], settings: Mapping[str, str]) -> None:
    """Write a file, which appears when it is complete.

    Args:
        path: ends in .safetensors or .npz.
        tensors: those of wider types first, so that all lie aligned in a .safetensors file.
        settings: kept beside them.

    Raises:
        UsageError: if the name ends in anything else.
        OSError: if the disk is full or cannot be written.
    """
    check_name(path)
    with replacing(path) as file:
        if path.suffix == ".npz":
            _write_npz(file, tensors, settings)
        else:
            _write_safetensors(file, tensors, settings)


def check_name(path: Path) -> None:
    """Raise UsageError unless the name ends in .safetensors or .npz."""
    if path.suffix not in {".safetensors", ".npz"}:
        raise UsageError(f"{path}: vectors are kept in .safetensors or .npz files; use such a name")


def _read_safetensors(path: Path) -> TensorFile:
    content = np.memmap(path, np.uint8, "r")
    length = int.from_bytes(content[:8].tobytes(), "little")
    start = 8 + length
    if length > _LONGEST_HEADER or start > len(content):
        raise ValueError(f"a header of {length} bytes in a file of {len(content)}")
    header = json.loads(content[8:start].tobytes())
    settings = header.pop("__metadata__", {})
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if entry["dtype"] not in _DTYPES:
            raise DataError(
                f"{path}: {name!r} is {entry['dtype']!r}, which NumPy cannot hold; "
                "make it F32 or F16"
            )
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        expected = math.prod(entry["shape"]) * dtype.itemsize
        if not 0 <= begin <= end <= len(content) - start or end - begin != expected:
            raise ValueError(f"{name!r} should have {expected} bytes, and has {begin} to {end}")
        array = np.asarray(content)[start + begin : start + end].view(dtype)
        arrays[name] = array.reshape(entry["shape"])
    return TensorFile(path, arrays, {str(key): str(value) for key, value in settings.items()})


def _read_npz(path: Path) -> TensorFile:
    arrays, settings = {}, {}
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if member.compress_type != zipfile.ZIP_STORED:
                raise DataError(
                    f"{path}: {name!r} is compressed and cannot be mapped; write the file with "
                    "np.savez, not np.savez_compressed"
                )
            array = _map_member(path, file, member)
            if array.ndim == 0:
                settings[name] = str(array.item())
            else:
                arrays[name] = array
    return TensorFile(path, arrays, settings)


def _map_member(path: Path, file: BinaryIO, member: zipfile.ZipInfo) -> NDArray[Any]:
    file.seek(member.header_offset)
    header = file.read(_ZIP_HEADER)
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    file.seek(member.header_offset + _ZIP_HEADER + lengths)
    check_header(file)
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{member.filename!r} holds Python objects")
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype)
    order: Literal["F", "C"] = "F" if by_columns else "C"
    return np.asarray(np.memmap(path, dtype, "r", file.tell(), shape, order))


def _write_safetensors(
    file: BinaryIO, tensors: Sequence[Tensor], settings: Mapping[str, str]
) -> None:
    header: dict[str, Any] = {"__metadata__": dict(settings)}
    names = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
    end = 0
    for tensor in tensors:
        begin, end = end, end + math.prod(tensor.shape) * tensor.dtype.itemsize
        header[tensor.name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data start at a multiple of 8
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors:
        _write_blocks(file, tensor)


def _write_npz(file: BinaryIO, tensors: Sequence[Tensor], settings: Mapping[str, str]) -> None:
    strings = [(name, np.array(value)) for name, value in settings.items()]
    with zipfile.ZipFile(file, "w") as archive:
        for tensor in [*tensors, *(Tensor(name, a.dtype, (), [a]) for name, a in strings)]:
            with archive.open(zipfile.ZipInfo(f"{tensor.name}.npy"), "w", force_zip64=True) as npz:
                descr = npy.dtype_to_descr(tensor.dtype)
                header = {"descr": descr, "fortran_order": False, "shape": tensor.shape}
                npy.write_array_header_1_0(npz, header)
                _write_blocks(npz, tensor)


def _write_blocks(file: BinaryIO | Any, tensor: Tensor) -> None:
    written = 0
    for block in tensor.blocks:
        file.write(np.ascontiguousarray(block, tensor.dtype).tobytes())
        written += block.size
    assert written == math.prod(tensor.shape), f"{tensor.name} is not whole"
