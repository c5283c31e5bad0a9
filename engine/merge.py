"""When segments are merged, and merging them: the live documents of several become one segment.

Every update adds a segment, and every segment is searched, so they may not become many. Two rules,
looked at after each update:

1. The first segment that does not hold `GROWTH` times as many live documents as all behind it is
   merged with them. So there are no more than log3(N) + 1 segments; and whenever a document is
   copied its segment has become half as large again, so that happens few times.
2. A segment of which more is deleted than live is written anew without what is deleted.

Where documents borrow terms (`borrow.py`), those that are written anew borrow anew, of what is live
then before them and among them.

Only neighbours are merged, so documents keep their order, and vectors are copied, never encoded. A
merge is a state of its own: when it fails or is killed, the state before it stands.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dupmae.engine.leftovers import next_segment, remove_leftovers
from dupmae.engine.lock import writer_lock
from dupmae.engine.manifest import (
    FORMAT_VERSION,
    Manifest,
    SegmentRecord,
    now,
    read_manifest,
    write_manifest,
)
from dupmae.engine.opened import Segment
from dupmae.engine.segment import merge_segments
from dupmae.errors import DupMAEError

GROWTH = 2
"""A smaller factor merges less often and leaves more segments."""

logger = logging.getLogger(__name__)


def compact(folder: Path | str) -> Manifest:
    """Merge all segments into one that holds live documents only; what is deleted is then gone.

    Documents that borrow terms do so anew: the index then is one built of just these documents.

    Returns:
        The manifest, which is the same if there is nothing to do.

    Raises:
        IndexMissingError: if there is no index, or it is damaged.
        DupMAEError: if the disk is full or cannot be written, or another writer is at work.
    """
    folder = Path(folder)
    read_manifest(folder)  # before a lock would make the folder
    try:
        with writer_lock(folder):
            manifest = read_manifest(folder)
            remove_leftovers(folder, manifest)
            if _is_compact(manifest):
                return manifest
            return _merge(folder, manifest, 0, len(manifest.segments))
    except OSError as error:
        raise DupMAEError(
            f"index {folder} could not be compacted: {error}; its documents are unchanged"
        ) from error


def _is_compact(manifest: Manifest) -> bool:
    if len(manifest.segments) > 1 or any(segment.deleted for segment in manifest.segments):
        return False
    if manifest.borrow is None or not manifest.segments:
        return True
    # After that state, documents that lent terms to these may have been deleted.
    return manifest.generation == int(manifest.segments[0].name)


def merge_if_due(folder: Path, manifest: Manifest) -> Manifest:
    """Merge what the rules above ask for; the caller holds the lock. Returns the last state.

    A disk without room for the copy is no error: the documents are safe, and the next update tries
    again.
    """
    try:
        while due := segments_to_merge(manifest.segments):
            manifest = _merge(folder, manifest, *due)
    except OSError as error:
        logger.warning("%s: segments were not merged (%s); the next update will try", folder, error)
        manifest = read_manifest(folder)
        remove_leftovers(folder, manifest)
    return manifest


def segments_to_merge(segments: Sequence[SegmentRecord]) -> tuple[int, int] | None:
    """Return the first segment to be merged and the one behind the last; None if none need be."""
    for first in range(len(segments) - 1):
        if segments[first].live < GROWTH * sum(segment.live for segment in segments[first + 1 :]):
            return first, len(segments)
    for place, segment in enumerate(segments):
        if segment.deleted > segment.live:
            return place, place + 1
    return None


def _merge(folder: Path, manifest: Manifest, first: int, end: int) -> Manifest:
    """Put one segment in the place of `first` to `end` − 1."""
    number = next_segment(folder, manifest)
    segments: list[Segment] = []
    try:
        for record in manifest.segments[0 if manifest.borrow else first : end]:
            segments.append(Segment.open(folder, record))
        older, merging = segments[: first - end], segments[first - end :]
        merged = merge_segments(folder, number, merging, manifest.borrow, older)
    finally:
        for segment in segments:
            segment.documents.close()
    manifest = replace(
        manifest,
        generation=max(manifest.generation + 1, int(number)),
        created=now(),
        segments=(*manifest.segments[:first], merged, *manifest.segments[end:]),
        format_version=FORMAT_VERSION,
    )
    write_manifest(folder, manifest)
    remove_leftovers(folder, manifest)
    return manifest
