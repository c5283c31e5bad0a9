"""Deleting documents by their ids, in one step for vectors, terms and texts.

Adding and replacing them is what `build.py` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dupmae.engine.deletes import delete, live_without
from dupmae.engine.leftovers import remove_leftovers
from dupmae.engine.lock import writer_lock
from dupmae.engine.manifest import now, read_manifest, write_manifest
from dupmae.engine.merge import merge_if_due
from dupmae.errors import DupMAEError


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
            live = live_without(folder, before, doc_ids, missing_ok=missing_ok)
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
