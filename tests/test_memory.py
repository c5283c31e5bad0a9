from __future__ import annotations

import ctypes
import sys

import numpy as np
import pytest

from dupmae.engine.memory import release_free_memory, resident_bytes
from dupmae.indexes.npy import release_pages

MEGABYTE = 1 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="read from Linux's /proc")


def resident() -> int:
    found = resident_bytes()
    assert found is not None
    return found


def test_what_is_held_is_counted() -> None:
    before = resident()
    held = np.ones(64 * MEGABYTE, np.uint8)
    assert 60 * MEGABYTE < resident() - before < 70 * MEGABYTE
    assert len(held)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_memory_that_was_freed_between_what_is_held_is_given_back() -> None:
    before = resident()
    pieces = [b"x" * 100_000 for _ in range(1000)]  # too small to be mapped one by one
    del pieces[:-1]
    release_free_memory()
    assert resident() - before < 20 * MEGABYTE
    assert len(pieces) == 1


def test_pages_of_a_mapped_file_are_given_back_and_can_be_read_again(tmp_path) -> None:
    np.save(tmp_path / "big.npy", np.arange(8 * MEGABYTE))
    mapped = np.asarray(np.load(tmp_path / "big.npy", mmap_mode="r"))
    before = resident()
    total = mapped.sum()
    assert resident() - before > 50 * MEGABYTE
    release_pages(mapped[10:])
    assert resident() - before < 10 * MEGABYTE
    assert mapped.sum() == total


def test_an_array_that_is_no_file_keeps_its_values() -> None:
    array = np.arange(10)
    release_pages(array[2:])
    assert array.tolist() == list(range(10))
