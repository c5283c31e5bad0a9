"""MANIFEST.json: the one file of an index folder that is ever replaced, and so its state.

    my.index/MANIFEST.json
    my.index/WRITER.lock                        see `lock.py`
    my.index/JOURNAL.jsonl                      of an unfinished build only: see `journal.py`
    my.index/segments/000001/forward/           vectors: see `dupmae.indexes.forward`
    my.index/segments/000001/outline/           dense vectors in brief: `dupmae.indexes.outline`
    my.index/segments/000001/hnsw/              a graph of them, if asked for: `dupmae.indexes.hnsw`
    my.index/segments/000001/inverted/          or `tantivy/` or `lucene/`: `dupmae.indexes.sparse`
    my.index/segments/000001/documents.sqlite   ids and texts: `dupmae.indexes.documents`
    my.index/segments/000001/reading/           what was read of the texts: see `reading.py`
    my.index/deletes/000002-000001.npy          see `deletes.py`

The manifest names the live segments with every file's size and checksum, what is deleted of each,
and the encoder's seal and canaries. A file that no manifest names does not exist: a writer that is
killed at any moment leaves the old state. No other file is ever changed, so a reader keeps the
state it opened. Sizes are checked whenever a manifest is read; checksums only when asked, since
that reads it all.
`docs/index-format.md` says all of this for other programs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from dupmae.engine.borrow import Borrow
from dupmae.engine.canaries import Canaries, Canary
from dupmae.engine.chunking import Chunk
from dupmae.engine.stored_files import StoredFile, check_size, damaged
from dupmae.errors import IndexMissingError, UsageError
from dupmae.files import replacing

FORMAT_VERSION = 4
READABLE_FORMATS = (3, FORMAT_VERSION)
"""Format 3 is 4 without canaries, `chunk`, and folders but `forward/`, `tantivy/`; 4 is written."""
MANIFEST_NAME = "MANIFEST.json"
FORWARD_NAME, OUTLINE_NAME, HNSW_NAME = "forward", "outline", "hnsw"
DOCUMENTS_NAME = "documents.sqlite"

_NEW_IN_4 = ("truncated", "passages")
_TYPES = {"int": (int,), "str": (str,), "int | None": (int, NoneType), "float": (float,)}

Record = TypeVar("Record")
Opened = TypeVar("Opened")


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """What the manifest says of a live segment."""

    name: str
    """Of its folder below `segments/`; never used twice."""
    documents: int
    """As written, those included that were deleted since."""
    deleted: int
    corpus_hash: str
    """`dupmae.engine.corpus_hash` of the documents as written."""
    files: tuple[StoredFile, ...]
    deletes: StoredFile | None
    """Names the deleted documents; None if there are none."""
    truncated: int | None = None
    """Documents, deleted ones not counted, of which only a part was read; None: unknown."""
    passages: int | None = None
    """Of documents that are not deleted; None where documents are not split."""

    def __post_init__(self) -> None:
        if not 0 <= self.deleted < self.documents or (self.deletes is None) != (self.deleted == 0):
            raise ValueError(f"segment {self.name} has {self.deleted} of {self.documents} deleted")
        if self.truncated is not None and not 0 <= self.truncated <= self.live:
            raise ValueError(f"segment {self.name} has {self.truncated} truncated documents")
        if self.passages is not None and self.passages < self.live:
            raise ValueError(f"segment {self.name} has {self.passages} passages")

    @property
    def live(self) -> int:
        """How many of its documents are not deleted; at least one."""
        return self.documents - self.deleted


@dataclass(frozen=True, slots=True)
class Manifest:
    """The state of an index folder; documents are in the order of segments and, there, of rows."""

    generation: int
    """Rises with every state, and is at least the number of each segment."""
    created: str
    """When this state was made: ISO 8601, UTC."""
    encoder_name: str
    encoder_seal: str
    dense_dim: int
    vocabulary_size: int
    segments: tuple[SegmentRecord, ...]
    canaries: Canaries | None = None
    """Texts as the encoder saw them; None if vectors came from files, or the format is 3."""
    chunk: Chunk | None = None
    """How documents are split into passages; None if they are not."""
    borrow: Borrow | None = None
    """How documents borrow terms from others; None if they do not."""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if any((segment.passages is None) != (self.chunk is None) for segment in self.segments):
            raise ValueError("documents are split in some segments and not in others")

    @property
    def documents(self) -> int:
        """How many documents there are, deleted ones not counted."""
        return sum(segment.live for segment in self.segments)

    @property
    def truncated(self) -> int | None:
        """Of how many documents the encoder read only a part; None if nobody knows."""
        return _sum([segment.truncated for segment in self.segments])

    @property
    def passages(self) -> int | None:
        """How many passages the documents have; None if they are not split."""
        return None if self.chunk is None else _sum([s.passages for s in self.segments])

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All files of this state but the manifest."""
        deletes = [segment.deletes for segment in self.segments if segment.deletes]
        return tuple(file for segment in self.segments for file in segment.files) + tuple(deletes)

    @property
    def corpus_hash(self) -> str:
        """`dupmae.engine.corpus_hash` of the documents; "" if updates have left it unknown."""
        known = len(self.segments) == 1 and self.segments[0].deleted == 0
        return self.segments[0].corpus_hash if known else ""


def segment_name(number: int) -> str:
    """Return the folder name of a segment."""
    return f"{number:06d}"


def now() -> str:
    """Return what `created` says of a state made now."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make `manifest` the state of the folder: afterwards either the old or the new one stands."""
    with replacing(folder / MANIFEST_NAME) as file:
        file.write(manifest_content(manifest))


def read_manifest(folder: Path) -> Manifest:
    """Read the state of an index folder and check that its files are there.

    Raises:
        IndexMissingError: if there is no index, its manifest is damaged or of another format, or
            a file is missing or of another size.
    """
    return read_state(folder, lambda manifest: manifest)


def read_state(folder: Path, opens: Callable[[Manifest], Opened]) -> Opened:
    """Return what `opens` makes of the state of a folder, whatever writers do meanwhile.

    A writer may remove the files of a state that is just being opened; then its next state is.

    Raises:
        IndexMissingError: as `read_manifest`, and what `opens` raises.
    """
    manifest = parse_manifest(folder)
    while True:
        try:
            for file in manifest.files:
                check_size(folder, file)
            return opens(manifest)
        except (IndexMissingError, OSError):
            latest = parse_manifest(folder)
            if latest == manifest:
                raise
            manifest = latest


def parse_manifest(folder: Path) -> Manifest:
    """Read the manifest alone, whether its files are there or not.

    Raises:
        IndexMissingError: if there is none, or it is damaged or of another format.
    """
    try:
        content = (folder / MANIFEST_NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise IndexMissingError(
            f"no index at {folder}; make one with `dupmae index corpus.jsonl --index {folder}`"
        ) from None
    except PermissionError:
        raise IndexMissingError(
            f"index {folder} cannot be read: you have no right to read {MANIFEST_NAME}; ask its "
            "owner for that"
        ) from None
    except OSError as error:
        raise damaged(folder, f"{MANIFEST_NAME} cannot be read ({error})") from error
    return manifest_of(folder, content)


def manifest_of(folder: Path, content: bytes) -> Manifest:
    """Read a manifest's content.

    Raises:
        IndexMissingError: if it is damaged or of another format; the message names `folder`.
    """
    try:
        record = json.loads(content)
        version = record["format_version"]
        if version not in READABLE_FORMATS or type(version) is not int:
            raise _other_format(folder, version)
        del record["checksum"]
        manifest = _manifest(record)
    except (ValueError, KeyError, TypeError, RecursionError, UsageError) as error:
        raise damaged(folder, f"{MANIFEST_NAME} is not a manifest ({error!r})") from error
    if content != manifest_content(manifest):
        raise damaged(folder, f"{MANIFEST_NAME} does not have the content that its checksum is of")
    return manifest


def _other_format(folder: Path, version: Any) -> IndexMissingError:
    if type(version) is not int:
        raise TypeError(f"format_version is {version!r}")
    update = "update dupmae, or " if version > FORMAT_VERSION else ""
    return IndexMissingError(
        f"index {folder} has format {version}, and this version of dupmae reads formats "
        f"{' and '.join(map(str, READABLE_FORMATS))}; {update}rebuild it with "
        f"`dupmae index corpus.jsonl --index {folder} --replace`"
    )


def manifest_content(manifest: Manifest) -> bytes:
    """Return what the file holds: JSON with, at its end, the checksum of the JSON without it."""
    record = _record(manifest)
    digest = hashlib.sha256(json.dumps(record).encode()).hexdigest()
    return f"{json.dumps({**record, 'checksum': digest}, indent=2)}\n".encode()


def _record(manifest: Manifest) -> dict[str, Any]:
    record = asdict(manifest)
    if manifest.borrow is None:  # as before there was such a thing
        del record["borrow"]
    if manifest.format_version == 3:
        del record["canaries"], record["chunk"]
        for segment in record["segments"]:
            for key in _NEW_IN_4:
                del segment[key]
    return record


def _manifest(record: Mapping[str, Any]) -> Manifest:
    """Make a manifest of parsed JSON; KeyError, TypeError or ValueError if it is none."""
    missing: dict[str, None] = {}
    if record["format_version"] == 3:
        missing = dict.fromkeys(_NEW_IN_4)
        record = {**record, "canaries": None, "chunk": None}
    segments = tuple(_segment({**missing, **segment}) for segment in record["segments"])
    canaries = _canaries(record["canaries"])
    chunk = None if record["chunk"] is None else _typed(Chunk, record["chunk"])
    borrow = _typed(Borrow, record["borrow"]) if "borrow" in record else None
    made = {"segments": segments, "canaries": canaries, "chunk": chunk, "borrow": borrow}
    return _typed(Manifest, {**record, **made})


def _canaries(record: Mapping[str, Any] | None) -> Canaries | None:
    if record is None:
        return None
    texts = tuple(_typed(Canary, canary) for canary in record["texts"])
    return _typed(Canaries, {**record, "texts": texts})


def _segment(record: Mapping[str, Any]) -> SegmentRecord:
    files = tuple(_typed(StoredFile, file) for file in record["files"])
    deletes = record["deletes"] and _typed(StoredFile, record["deletes"])
    return _typed(SegmentRecord, {**record, "files": files, "deletes": deletes})


def _typed(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """Make a record of exactly its fields, of which strings and numbers must be what they are."""
    for field in fields(kind):  # type: ignore[arg-type]  # all kinds here are dataclasses
        expected = _TYPES.get(str(field.type))
        if expected is not None and type(values[field.name]) not in expected:
            raise TypeError(f"{field.name} is {values[field.name]!r}")
    return kind(**values)


def _sum(counts: Sequence[int | None]) -> int | None:
    """Return the sum; None if one is not known."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
