"""Deleting documents by their ids or by a filter, in one step for vectors, terms and texts.

Adding and replacing them is what `build.py` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from dupmae.engine.deletes import delete, live_unless, live_without
from dupmae.engine.filter_grammar import to_filter
from dupmae.engine.filters import Filter
from dupmae.engine.leftovers import remove_leftovers
from dupmae.engine.lock import writer_lock
from dupmae.engine.manifest import (
    FORMAT_VERSION,
    Manifest,
    now,
    read_manifest,
    write_manifest,
)
from dupmae.engine.merge import merge_if_due
from dupmae.errors import DupMAEError
from dupmae.types import Bool


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
    return _delete(
        Path(folder),
        lambda folder, manifest: live_without(folder, manifest, doc_ids, missing_ok=missing_ok),
    )


def delete_matching(folder: Path | str, where: Filter | str) -> int:
    """Delete all documents that match a filter, in one step as `delete_documents`.

    Args:
        folder: of the index.
        where: a filter or an expression.

    Returns:
        How many documents were deleted, maybe none.

    Raises:
        IndexMissingError: if there is no index, or it is damaged.
        UsageError: if the expression is wrong.
        DupMAEError: if the disk is full or cannot be written, or another writer is at work.
    """
    chosen = to_filter(where)
    return _delete(Path(folder), lambda folder, manifest: live_unless(folder, manifest, chosen))


def _delete(folder: Path, still_live: Callable[[Path, Manifest], dict[str, Bool]]) -> int:
    """Delete documents, those of the live state that are chosen while no other writer works."""
    before = read_manifest(folder)  # before a lock would make the folder
    try:
        with writer_lock(folder):
            before = read_manifest(folder)
            remove_leftovers(folder, before)
            live = still_live(folder, before)
            if not live:
                return 0
            generation = before.generation + 1
            segments = delete(folder, before, generation, live)
            manifest = replace(
                before,
                generation=generation,
                created=now(),
                segments=segments,
                format_version=FORMAT_VERSION,
            )
            write_manifest(folder, manifest)
            remove_leftovers(folder, manifest)
            merge_if_due(folder, manifest)
            return before.documents - manifest.documents
    except OSError as error:
        stands = read_manifest(folder).generation == before.generation
        what = "nothing is deleted" if stands else "yet the documents are deleted"
        raise DupMAEError(f"index {folder} could not be written: {error}; {what}") from error
