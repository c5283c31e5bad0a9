"""Deleting documents by their ids, in one step for vectors, terms and texts.

Adding and replacing them is what `build.py` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from dupmae.engine.deletes import delete
from dupmae.engine.leftovers import remove_leftovers
from dupmae.engine.lock import writer_lock
from dupmae.engine.manifest import Manifest, now, read_manifest, write_manifest
from dupmae.engine.merge import merge_if_due
from dupmae.engine.opened import Segment, open_segments
from dupmae.errors import DataError, DupMAEError
from dupmae.types import Bool

_IDS = 1024
"""Ids looked up at a time."""


def delete_documents(
    folder: Path | str, doc_ids: Iterable[str], *, missing_ok: bool = False
) -> int:
    """Delete documents; their texts leave the disk when their segment is merged or compacted.

    Args:
        folder: of the index.
        doc_ids: read once; an id may repeat.
        missing_ok: whether ids that no document has are passed over.

    Returns:
        How many documents were deleted.

    Raises:
        IndexMissingError: if there is no index, or it is damaged.
        DataError: if no document has one of the ids; nothing is deleted then.
        DupMAEError: if the disk is full or cannot be written, or another writer is at work.
    """
    folder = Path(folder)
    before = read_manifest(folder)  # before a lock would make the folder
    try:
        with writer_lock(folder):
            before = read_manifest(folder)
            remove_leftovers(folder, before)
            live = _live_without(folder, before, doc_ids, missing_ok)
            if not live:
                return 0
            generation = before.generation + 1
            segments = delete(folder, before, generation, live)
            manifest = replace(before, generation=generation, created=now(), segments=segments)
            write_manifest(folder, manifest)
            remove_leftovers(folder, manifest)
            merge_if_due(folder, manifest)
            return before.documents - manifest.documents
    except OSError as error:
        stands = read_manifest(folder).generation == before.generation
        what = "nothing is deleted" if stands else "yet the documents are deleted"
        raise DupMAEError(f"index {folder} could not be written: {error}; {what}") from error


def _live_without(
    folder: Path, manifest: Manifest, doc_ids: Iterable[str], missing_ok: bool
) -> dict[str, Bool]:
    """Return which documents are live when some are deleted, of the segments that have these."""
    segments = open_segments(folder, manifest, {})
    try:
        live = {
            name: np.ones(len(segment), np.bool_) if segment.live is None else segment.live.copy()
            for name, segment in segments.items()
        }
        ids = iter(doc_ids)
        while block := list(islice(ids, _IDS)):
            unknown = _strike(segments, live, block)
            if unknown and not missing_ok:
                raise DataError(
                    f"no document of index {folder} has the id {unknown[0]!r}; nothing is deleted "
                    "(--missing-ok passes over such ids)"
                )
    finally:
        for segment in segments.values():
            segment.documents.close()
    return {
        name: kept
        for name, kept in live.items()
        if np.count_nonzero(kept) < segments[name].record.live
    }


def _strike(
    segments: dict[str, Segment], live: dict[str, Bool], doc_ids: Sequence[str]
) -> list[str]:
    """Mark documents as not live, and return the ids that none has."""
    unknown = dict.fromkeys(doc_ids)
    for name, segment in segments.items():
        found = segment.find(doc_ids)
        live[name][list(found.values())] = False
        for doc_id in found:
            unknown.pop(doc_id, None)
    return list(unknown)
