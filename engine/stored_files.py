"""The files of an index by size and checksum, and what is said where one is damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dupmae.errors import IndexMissingError

SEGMENTS_NAME, DELETES_NAME = "segments", "deletes"
"""The two folders that they lie in."""
ENCODED_NAME = "encoded"
"""Of a segment that is being written: its vectors before they borrow."""

_HASH_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of an index: `path` from its folder with "/", length in bytes, checksum."""

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if not parts or parts[0] not in {SEGMENTS_NAME, DELETES_NAME} or ".." in parts:
            raise ValueError(f"{self.path!r} is no file of an index")


def check_size(folder: Path, file: StoredFile) -> None:
    """Raise IndexMissingError if a file is missing or has another size."""
    try:
        size = (folder / file.path).stat().st_size
    except OSError:
        raise damaged(folder, f"{file.path} is missing") from None
    if size != file.size:
        raise damaged(folder, f"{file.path} should have {file.size} bytes and has {size}")


def check_content(folder: Path, file: StoredFile) -> None:
    """Raise IndexMissingError if a file is missing or its content is not what was written."""
    check_size(folder, file)
    try:
        found = describe_file(folder, folder / file.path)
    except OSError as error:
        raise damaged(folder, f"{file.path} cannot be read ({error})") from error
    if found != file:
        raise damaged(folder, f"the content of {file.path} has changed")


def describe_file(folder: Path, path: Path) -> StoredFile:
    """Return size and checksum of a file below an index folder."""
    digest, size = hashlib.sha256(), 0
    for block in _read_blocks(path):
        digest.update(block)
        size += len(block)
    return StoredFile(path.relative_to(folder).as_posix(), size, digest.hexdigest())


def damaged(folder: Path, what: str) -> IndexMissingError:
    """Return the error that says what is wrong with an index, and the cure."""
    return IndexMissingError(
        f"index {folder} is damaged: {what}; restore a snapshot, or rebuild it with "
        f"`dupmae index corpus.jsonl --index {folder} --replace`"
    )


def _read_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK):
            yield block
