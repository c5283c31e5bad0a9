"""Which documents of a segment are deleted: deletes/GENERATION-SEGMENT.npy, never changed.

A file holds the ordinals in the segment, int64 and rising, of all its documents that are deleted as
of that generation. A later state that deletes more names a file of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from dupmae.engine.filters import Filter, matching
from dupmae.engine.manifest import DOCUMENTS_NAME, Manifest, SegmentRecord, segment_name
from dupmae.engine.reading import READING_NAME, Reading
from dupmae.engine.stored_files import (
    DELETES_NAME,
    SEGMENTS_NAME,
    check_content,
    damaged,
    describe_file,
)
from dupmae.errors import DataError
from dupmae.files import flush
from dupmae.indexes.documents import DocumentStore
from dupmae.indexes.npy import closing_npy, open_npy
from dupmae.types import Bool

_IDS = 1024
"""Ids looked up at a time."""


def read_live(folder: Path, record: SegmentRecord) -> Bool | None:
    """Return which documents of a segment are live, (documents,); None if all are.

    The file is small and decides which documents exist, so its checksum is looked at.

    Raises:
        IndexMissingError: if the file is missing or damaged.
    """
    if record.deletes is None:
        return None
    check_content(folder, record.deletes)
    deleted = open_npy(folder / record.deletes.path, np.int64, ndim=1)
    rises = np.all(np.diff(deleted) > 0) and len(deleted) == record.deleted
    if not rises or not 0 <= deleted[0] <= deleted[-1] < record.documents:
        raise damaged(folder, f"{record.deletes.path} does not name {record.deleted} documents")
    live = np.ones(record.documents, dtype=np.bool_)
    live[deleted] = False
    return live


def live_without(
    folder: Path, manifest: Manifest, doc_ids: Iterable[str], *, missing_ok: bool
) -> dict[str, Bool]:
    """Return which documents are live when some are deleted, of the segments that have these.

    Args:
        folder: of the index.
        manifest: its state.
        doc_ids: read once, in blocks; an id may repeat.
        missing_ok: whether ids that no live document has are passed over.

    Raises:
        DataError: if no live document has one of the ids.
    """
    ids = iter(doc_ids)
    with ExitStack() as stack:
        texts, before, live = {}, {}, {}
        for record in manifest.segments:
            texts[record.name] = stack.enter_context(closing(_documents(folder, record)))
            before[record.name] = _live(folder, record)
            live[record.name] = before[record.name].copy()
        while block := list(islice(ids, _IDS)):
            unknown = dict.fromkeys(block)
            for name, store in texts.items():
                for doc_id, ordinal in store.find(block).items():
                    if before[name][ordinal]:
                        live[name][ordinal] = False
                        unknown.pop(doc_id, None)
            if unknown and not missing_ok:
                raise DataError(
                    f"no document of index {folder} has the id {min(unknown)!r}; nothing is "
                    "deleted (--missing-ok passes over such ids)"
                )
    return _fewer(manifest, live)


def live_unless(folder: Path, manifest: Manifest, where: Filter) -> dict[str, Bool]:
    """Return which documents are live when those that match are deleted, as `live_without`."""
    live = {}
    for record in manifest.segments:
        live[record.name] = _live(folder, record)
        with closing(_documents(folder, record)) as documents:
            matches = matching(where, documents, np.flatnonzero(live[record.name]))
        live[record.name][matches] = False
    return _fewer(manifest, live)


def delete(
    folder: Path, manifest: Manifest, generation: int, live: Mapping[str, Bool]
) -> tuple[SegmentRecord, ...]:
    """Write which documents are still live, and return the records of a new state.

    Args:
        folder: of the index.
        manifest: the state before.
        generation: of the state to come.
        live: (documents,), by name of the segments that lose documents. One that loses all of
            them has no place in the new state.
    """
    records = []
    for record in manifest.segments:
        kept = live.get(record.name)
        if kept is None:
            records.append(record)
        elif kept.any():
            records.append(_with_deletes(folder, record, generation, kept))
    return tuple(records)


def _documents(folder: Path, record: SegmentRecord) -> DocumentStore:
    return DocumentStore.open(folder / SEGMENTS_NAME / record.name / DOCUMENTS_NAME)


def _live(folder: Path, record: SegmentRecord) -> Bool:
    live = read_live(folder, record)
    return np.ones(record.documents, dtype=np.bool_) if live is None else live


def _fewer(manifest: Manifest, live: Mapping[str, Bool]) -> dict[str, Bool]:
    """Keep what is said of segments that lose documents."""
    return {
        record.name: live[record.name]
        for record in manifest.segments
        if np.count_nonzero(live[record.name]) < record.live
    }


def _with_deletes(
    folder: Path, record: SegmentRecord, generation: int, live: Bool
) -> SegmentRecord:
    path = folder / DELETES_NAME / f"{segment_name(generation)}-{record.name}.npy"
    if not path.parent.exists():
        path.parent.mkdir()
        flush(folder)
    deleted = np.flatnonzero(~live)
    with closing_npy(path, np.int64) as file:
        file.append(deleted)
    reading = Reading.open(folder / SEGMENTS_NAME / record.name / READING_NAME, record.documents)
    return replace(
        record,
        deleted=len(deleted),
        deletes=describe_file(folder, path),
        truncated=None if reading is None else reading.count_truncated(live),
        passages=None if reading is None else reading.count_passages(live),
    )
