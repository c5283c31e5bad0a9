"""Writing files and folders that are never half there, whatever is killed when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once all of it is on the disk.

    If the block fails, `path` stays as it was. The file beside it carries the process's number,
    so that processes which write the same content do not disturb each other.

    Raises:
        OSError: the place cannot be written to, or the disk is full.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            yield file
        publish(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def publish(partial: Path, path: Path) -> None:
    """Flush a finished file, give it its real name, and flush that."""
    flush(partial)
    partial.replace(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Flush a file's content or a folder's entries to the disk, so that a power cut spares it."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows cannot open a folder, and journals its entries
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
