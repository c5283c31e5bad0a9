"""Which documents of a segment are deleted: deletes/GENERATION-SEGMENT.npy, never changed.

A file holds the ordinals in the segment, int64 and rising, of all its documents that are deleted as
of that generation. A later state that deletes more names a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dupmae.engine.manifest import (
    DELETES_NAME,
    Manifest,
    SegmentRecord,
    check_content,
    damaged,
    describe_file,
    segment_name,
)
from dupmae.files import flush
from dupmae.indexes.npy import NpyWriter, open_npy
from dupmae.types import Bool


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


def _with_deletes(
    folder: Path, record: SegmentRecord, generation: int, live: Bool
) -> SegmentRecord:
    path = folder / DELETES_NAME / f"{segment_name(generation)}-{record.name}.npy"
    if not path.parent.exists():
        path.parent.mkdir()
        flush(folder)
    deleted = np.flatnonzero(~live)
    writer = NpyWriter(path, np.int64)
    try:
        writer.append(deleted)
        writer.close()
    finally:
        writer.abandon()
    return replace(record, deleted=len(deleted), deletes=describe_file(folder, path))
