from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from dupmae.errors import DataError, UsageError
from dupmae.indexes.tensors import Tensor, open_tensors, write_tensors

ARRAYS = {
    "borders": np.array([0, 2, 3], np.int64),
    "dense": np.arange(6, dtype=np.float32).reshape(2, 3),
    "none": np.zeros((0, 3), np.float32),
    "terms": np.array([4, 5, 9], np.int32),
    "halves": np.array([0.5, 1.5], np.float16),
}
SETTINGS = {"encoder": "tiny", "seal": "3f2a ü"}
KINDS = pytest.mark.parametrize("suffix", [".safetensors", ".npz"])


def written(path: Path) -> Path:
    tensors = [Tensor(n, a.dtype, a.shape, [a[:1], a[1:]]) for n, a in ARRAYS.items()]
    write_tensors(path, tensors, SETTINGS)
    return path


def assert_arrays(found: Any) -> None:
    for name, expected in ARRAYS.items():
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


@KINDS
def test_a_file_gives_back_what_was_written(tmp_path: Path, suffix: str) -> None:
    file = open_tensors(written(tmp_path / f"a{suffix}"))
    assert file.arrays.keys() == ARRAYS.keys()
    assert file.settings == SETTINGS
    assert_arrays(file.arrays)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_the_safetensors_library_reads_what_is_written(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors")
    assert_arrays(safetensors.numpy.load_file(path))
    with safe_open(path, "numpy") as file:
        assert file.metadata() == SETTINGS


def test_numpy_reads_what_is_written(tmp_path: Path) -> None:
    with np.load(written(tmp_path / "a.npz")) as file:
        assert_arrays(file)
        assert {name: str(file[name]) for name in SETTINGS} == SETTINGS


def test_what_the_safetensors_library_writes_is_read(tmp_path: Path) -> None:
    safetensors.numpy.save_file(ARRAYS, tmp_path / "a.safetensors", metadata=SETTINGS)
    file = open_tensors(tmp_path / "a.safetensors")
    assert_arrays(file.arrays)
    assert file.settings == SETTINGS


def test_what_numpy_writes_is_read(tmp_path: Path) -> None:
    arrays = ARRAYS | {"dense": np.asfortranarray(ARRAYS["dense"])}
    np.savez(tmp_path / "a.npz", **arrays, **SETTINGS, size=np.int64(200))  # type: ignore[arg-type]
    file = open_tensors(tmp_path / "a.npz")
    assert_arrays(file.arrays)
    assert file.settings == SETTINGS | {"size": "200"}


@KINDS
def test_memory_is_that_of_a_block(tmp_path: Path, suffix: str) -> None:
    block = np.ones((1000, 64), np.float32)
    tracemalloc.start()
    tensor = Tensor("dense", block.dtype, (20_000, 64), (block for _ in range(20)))
    write_tensors(tmp_path / f"a{suffix}", [tensor], {})
    open_tensors(tmp_path / f"a{suffix}").arrays["dense"][::999].sum()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * block.nbytes


def bad_header(**entry: object) -> bytes:
    fields = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | entry
    header = json.dumps({"dense": fields}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"short", "damaged"),
        (b"\xff" * 100, "damaged"),
        (bad_header()[:-1], "'dense' should have 8 bytes"),
        (bad_header(shape=[3]), "'dense' should have 12 bytes"),
        (bad_header(data_offsets=[4, 12]), "'dense' should have 8 bytes"),
        (bad_header(data_offsets=[-8, 0]), "'dense' should have 8 bytes"),
        (bad_header(data_offsets="ab"), "damaged"),
        (bad_header(dtype="BF16"), "'dense' is 'BF16'.*F32 or F16"),
        ((2).to_bytes(8, "little") + b"[]", "damaged"),
        ((1).to_bytes(8, "little") + b"5", "damaged"),
    ],
)
def test_a_damaged_safetensors_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.safetensors.*{words}"):
        open_tensors(tmp_path / "a.safetensors")


def test_an_npz_that_cannot_be_mapped_is_named_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, dense=ARRAYS["dense"])
    with pytest.raises(DataError, match=r"a\.npz: 'dense' is compressed.*np\.savez"):
        open_tensors(path)
    np.savez(path, dense=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"dense\.npy' holds Python objects"):
        open_tensors(path)
    content = written(path).read_bytes()
    for damaged in (b"", content[:-30], content.replace(b"NUMPY", b"numpy")):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.npz is damaged"):
            open_tensors(path)


def test_other_names_and_missing_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.bin.*\.safetensors or \.npz"):
        open_tensors(tmp_path / "a.bin")
    with pytest.raises(UsageError, match=r"a\.bin"):
        write_tensors(tmp_path / "a.bin", [], {})
    with pytest.raises(DataError, match=r"no file of vectors at .*a\.npz"):
        open_tensors(tmp_path / "a.npz")
