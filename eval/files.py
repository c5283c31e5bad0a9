"""Reading lines that may be compressed, and writing files that are never half there."""

from __future__ import annotations

import errno
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from dupmae.errors import DataError
from dupmae.files import replacing

_GZIP_MAGIC = b"\x1f\x8b"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Yield number (from 1) and content of each line that is not blank.

    UTF-8 with or without a byte order mark, plain or gzip (known by its first bytes), lines ending
    with LF or CRLF. A line ends only there: U+2028 and lone CR stay inside it.

    Raises:
        DataError: if the file is missing, a folder, a damaged gzip or not UTF-8.
    """
    number = 0
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            raw.seek(0)
            stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if is_gzip else raw  # type: ignore[assignment]
            for number, line in enumerate(stream, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}: not UTF-8 (byte {error.start + 1} of the line)"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a damaged gzip file after line {number}: {error}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


@contextmanager
def replacing_text(path: Path) -> Iterator[IO[str]]:
    """Open a UTF-8 text file that takes the place of `path` only once all of it is on the disk.

    Raises:
        DataError: if the place cannot be written to or the disk is full; `path` is then as it was.
    """
    opened = False
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file, TextIOWrapper(file, "utf-8", newline="\n") as stream:
            opened = True
            yield stream
    except OSError as error:
        if opened and error.errno not in _DISK_FULL:
            raise  # whatever else the caller did in here is not ours to tell
        cure = "; free some space" if opened else ""
        raise DataError(f"cannot write {path}: {error.strerror}{cure}") from error


def write_text(path: Path, text: str) -> None:
    """Write a whole text file; see `replacing_text`."""
    with replacing_text(path) as stream:
        stream.write(text)
