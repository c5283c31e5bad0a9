"""MANIFEST.json: the one file of an index folder that is ever replaced, and so its state.

    my.index/MANIFEST.json
    my.index/WRITER.lock                        see `lock.py`
    my.index/JOURNAL.jsonl                      of an unfinished build only: see `journal.py`
    my.index/segments/000001/forward/           vectors: see `dupmae.indexes.forward`
    my.index/segments/000001/tantivy/           sparse candidates, or `lucene/`: see
                                                `dupmae.indexes.sparse`
    my.index/segments/000001/documents.sqlite   ids and texts: `dupmae.indexes.documents`

The manifest names the live segment with every file's size and checksum, the encoder's seal, and
what was indexed. A segment that no manifest names does not exist: a build that is killed at any
moment leaves the old state. Sizes are checked whenever a manifest is read; checksums only when
asked, since that reads the whole index.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dupmae.errors import IndexMissingError
from dupmae.files import flush, replacing

FORMAT_VERSION = 2
MANIFEST_NAME = "MANIFEST.json"
SEGMENTS_NAME = "segments"
FORWARD_NAME = "forward"
DOCUMENTS_NAME = "documents.sqlite"

_HASH_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A file of a segment: `path` relative to its folder with "/", length in bytes, checksum."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The state of an index folder."""

    generation: int
    """Counts the states of the folder from 1; the live segment is named after it."""
    created: str
    """When the build ended: ISO 8601, UTC."""
    encoder_name: str
    encoder_seal: str
    documents: int
    corpus_hash: str
    """`dupmae.engine.corpus_hash` of the documents."""
    dense_dim: int
    vocabulary_size: int
    files: tuple[SegmentFile, ...]
    format_version: int = FORMAT_VERSION

    @property
    def segment(self) -> str:
        """Name of the live segment's folder below `segments/`."""
        return segment_name(self.generation)


def segment_name(generation: int) -> str:
    """Return the folder name of the segment that a generation is made of."""
    return f"{generation:06d}"


def segment_folder(folder: Path, manifest: Manifest) -> Path:
    """Return where the live segment of an index folder lies."""
    return folder / SEGMENTS_NAME / manifest.segment


def describe_files(segment: Path) -> tuple[SegmentFile, ...]:
    """Flush all files of a finished segment to the disk and return their sizes and checksums."""
    described = []
    for path in sorted(path for path in segment.rglob("*") if path.is_file()):
        flush(path)
        size, digest = _digest(path)
        described.append(SegmentFile(path.relative_to(segment).as_posix(), size, digest))
    for path in [*segment.rglob("*"), segment, segment.parent]:
        if path.is_dir():
            flush(path)
    return tuple(described)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make `manifest` the state of the folder: afterwards either the old or the new one stands."""
    text = json.dumps(asdict(manifest), indent=2)
    with replacing(folder / MANIFEST_NAME) as file:
        file.write(f"{text}\n".encode())


def read_manifest(folder: Path) -> Manifest:
    """Read the state of an index folder and check that its files are there.

    Raises:
        IndexMissingError: if there is no index, its manifest is damaged or of a newer format, or
            a file of its segment is missing or of another size.
    """
    try:
        text = (folder / MANIFEST_NAME).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise IndexMissingError(
            f"no index at {folder}; make one with `dupmae index corpus.jsonl --index {folder}`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(folder, f"{MANIFEST_NAME} cannot be read ({error})") from error
    manifest = _parse(folder, text)
    segment = segment_folder(folder, manifest)
    for file in manifest.files:
        _check_size(folder, segment / file.path, file)
    return manifest


def verify_checksums(folder: Path, manifest: Manifest) -> None:
    """Read every file of the live segment and compare it with its checksum.

    Raises:
        IndexMissingError: if a file is missing or its content has changed.
    """
    segment = segment_folder(folder, manifest)
    for file in manifest.files:
        path = segment / file.path
        _check_size(folder, path, file)
        if _digest(path)[1] != file.sha256:
            raise _damaged(folder, f"the content of {path.relative_to(folder)} has changed")


def _check_size(folder: Path, path: Path, file: SegmentFile) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        raise _damaged(folder, f"{path.relative_to(folder)} is missing") from None
    if size != file.size:
        raise _damaged(
            folder, f"{path.relative_to(folder)} should have {file.size} bytes and has {size}"
        )


def _parse(folder: Path, text: str) -> Manifest:
    try:
        record = json.loads(text)
        version = record["format_version"]
        if version > FORMAT_VERSION:
            raise IndexMissingError(
                f"index {folder} has format {version}, and this version of dupmae reads up to "
                f"{FORMAT_VERSION}; update dupmae, or rebuild the index"
            )
        return _manifest(record)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(folder, f"{MANIFEST_NAME} is not a manifest ({error!r})") from error


def _manifest(record: Mapping[str, Any]) -> Manifest:
    """Make a manifest of parsed JSON; KeyError, TypeError or ValueError if it is none."""
    values = {field.name: record[field.name] for field in fields(Manifest)}
    for field in fields(Manifest):
        expected = {"int": int, "str": str}.get(str(field.type))
        if expected is not None and type(values[field.name]) is not expected:
            raise TypeError(f"{field.name} is {values[field.name]!r}")
    files = tuple(
        SegmentFile(str(file["path"]), int(file["size"]), str(file["sha256"]))
        for file in values["files"]
    )
    return Manifest(**{**values, "files": files})


def _damaged(folder: Path, what: str) -> IndexMissingError:
    return IndexMissingError(
        f"index {folder} is damaged: {what}; rebuild it with "
        f"`dupmae index corpus.jsonl --index {folder} --replace`"
    )


def _digest(path: Path) -> tuple[int, str]:
    """Return length in bytes and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()
