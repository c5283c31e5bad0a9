"""Building an index folder from a stream of documents, in memory bounded by a few blocks.

A build writes a new segment and makes it live by its last step, the manifest. Whatever ends it
before, ctrl-C, a full disk, a bad document, a kill, the old index stands as it was, and what was
encoded is kept: the next build of the same encoder goes on after the last block whose documents
are still the same, with the same result as if it had never stopped (see `journal.py`).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import replace as changed
from pathlib import Path

from dupmae.engine.journal import JOURNAL_NAME, Journal, Plan
from dupmae.engine.lock import LOCK_NAME, writer_lock
from dupmae.engine.manifest import (
    FORWARD_NAME,
    MANIFEST_NAME,
    SEGMENTS_NAME,
    Manifest,
    read_manifest,
    segment_name,
    write_manifest,
)
from dupmae.engine.segment import write_segment
from dupmae.engine.vectors import VectorFiles
from dupmae.errors import DupMAEError, IndexMissingError, UsageError
from dupmae.indexes.forward import ForwardWriter
from dupmae.indexes.sparse import DEFAULT_SPARSE, check_sparse
from dupmae.types import Document, TextEncoder

BLOCK_SIZE = 512
"""Documents encoded at once: enough for an encoder to sort them by length before it pads, and what
a killed build loses at most."""

logger = logging.getLogger(__name__)


def build_index(
    documents: Iterable[Document],
    encoder: TextEncoder | VectorFiles,
    folder: Path | str,
    *,
    block_size: int = BLOCK_SIZE,
    replace: bool = False,
    total: int | None = None,
    sparse: str = DEFAULT_SPARSE,
) -> Manifest:
    """Index documents in a folder; ordinals follow their order.

    Args:
        documents: read once, in a thread of its own; an error that reading raises ends the build
            and passes through.
        encoder: gives the vectors, or files of vectors that it has made; its seal goes into the
            manifest.
        folder: absent, empty, an index, or what a stopped build has left.
        block_size: documents encoded at once, ≥ 1; changes memory and speed only.
        replace: whether an index that is there may be replaced. It stands until the new one is
            complete, so the disk must hold both.
        total: number of documents, if known, to tell the time left.
        sparse: which store finds sparse candidates, of `SPARSE_STORES`; answers are the same.

    Returns:
        The manifest of the new index.

    Raises:
        UsageError: if the folder holds an index and `replace` is not set, or holds other files,
            or there is no such sparse store.
        IndexMissingError: if it holds a damaged index and `replace` is not set.
        DataError: if there are no documents or an id repeats, or vectors are not of them.
        DupMAEError: if the disk is full or cannot be written, another build is writing there, or
            what the sparse store needs is not installed.
    """
    folder = Path(folder)
    check_sparse(sparse)
    if block_size < 1:
        raise UsageError(f"block_size must be at least 1, found {block_size}")
    _refuse_other_files(folder)
    plan = Plan(
        generation=0,
        encoder_name=encoder.name,
        encoder_seal=encoder.seal,
        dense_dim=encoder.dense_dim,
        vocabulary_size=encoder.vocabulary_size,
        block_size=block_size,
    )
    kept = 0
    try:
        with writer_lock(folder):
            live = _live_generation(folder, replace)
            resumes = not isinstance(encoder, VectorFiles)
            journal = (resumes and _unfinished(folder, live, plan)) or _begin(folder, live, plan)
            try:
                segment = _segment(folder, journal)
                manifest = write_segment(segment, documents, encoder, journal, sparse, total=total)
                write_manifest(folder, manifest)
            except BaseException as error:  # ctrl-C too
                kept = _leave(folder, journal)
                if kept and not isinstance(error, OSError):
                    logger.warning(
                        "stopped after %d documents; the same command goes on from there", kept
                    )
                raise
            journal.remove()
            _remove_segments(folder, keep={manifest.generation})
            return manifest
    except OSError as error:
        onward = f"; the same command goes on after {kept} documents" if kept else ""
        raise DupMAEError(
            f"index {folder} could not be built: {error}; an index that was there is unchanged"
            f"{onward}"
        ) from error


def _refuse_other_files(folder: Path) -> None:
    """Raise UsageError if the folder holds something that no build has put there."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; give an index folder, or a path where none is")
    names = {path.name for path in folder.iterdir()}
    if names and not names & {MANIFEST_NAME, LOCK_NAME}:
        raise UsageError(
            f"{folder} is no index but holds {min(names)!r}; give an index folder, an empty one, "
            "or a path where none is"
        )


def _live_generation(folder: Path, replace: bool) -> int | None:
    """Return the generation of the index that stands there; None if there is none, 0 if damaged.

    Raises:
        UsageError: if an index stands there and must not be replaced.
        IndexMissingError: if a damaged one does.
    """
    try:
        live = read_manifest(folder)
    except IndexMissingError:
        if not (folder / MANIFEST_NAME).exists():
            return None
        if not replace:
            raise
        return 0
    if not replace:
        raise UsageError(
            f"{folder} holds an index of {live.documents} documents already; "
            "use --replace to build it anew, or name another folder"
        )
    return live.generation


def _unfinished(folder: Path, live: int | None, plan: Plan) -> Journal | None:
    """Return the journal of a stopped build of the same vectors, if its blocks are there."""
    journal = Journal.read(folder)
    if journal is None or not journal.blocks or live in (0, journal.plan.generation):
        return None
    if not journal.plan.same_vectors(plan):
        logger.warning(
            "%s holds the %d first documents of a build that was stopped, by encoder %s (seal %s) "
            "in blocks of %d; it is begun anew",
            folder,
            journal.done.documents,
            journal.plan.encoder_name,
            journal.plan.encoder_seal[:12],
            journal.plan.block_size,
        )
        return None
    keep = (journal.done.documents, journal.done.nonzeros)
    forward = _segment(folder, journal) / FORWARD_NAME
    try:
        ForwardWriter(forward, plan.dense_dim, plan.vocabulary_size, keep=keep).abandon()
    except IndexMissingError as error:
        logger.warning("%s: what a stopped build has left is damaged (%s)", folder, error)
        return None
    journal.cut(len(journal.blocks))  # a line that was not written to its end goes
    _remove_segments(folder, keep={live, journal.plan.generation})
    return journal


def _begin(folder: Path, live: int | None, plan: Plan) -> Journal:
    """Begin a new segment; remove what stopped builds have left."""
    (folder / JOURNAL_NAME).unlink(missing_ok=True)  # before the segment that it is about
    if live != 0:  # with a damaged manifest any segment may be the one worth saving
        _remove_segments(folder, keep={live})
    generation = max(_generations(folder), default=0) + 1
    return Journal.begin(folder, changed(plan, generation=generation))


def _segment(folder: Path, journal: Journal) -> Path:
    return folder / SEGMENTS_NAME / segment_name(journal.plan.generation)


def _leave(folder: Path, journal: Journal) -> int:
    """Keep what a build that was ended has encoded, and return how many documents; or clean up."""
    try:
        if read_manifest(folder).generation == journal.plan.generation:
            journal.remove()  # it was ended when all was done
            return 0
    except IndexMissingError:
        pass
    if journal.blocks:
        return journal.done.documents
    journal.remove()
    shutil.rmtree(_segment(folder, journal), ignore_errors=True)
    segments = folder / SEGMENTS_NAME
    if segments.exists() and not any(segments.iterdir()):
        segments.rmdir()
    return 0


def _remove_segments(folder: Path, keep: set[int | None]) -> None:
    """Remove all other segments. What a reader still holds open, on Windows, stays for now."""
    for generation in _generations(folder):
        if generation not in keep:
            shutil.rmtree(folder / SEGMENTS_NAME / segment_name(generation), ignore_errors=True)


def _generations(folder: Path) -> list[int]:
    """Return the generations of which a segment, whole or not, is there."""
    names = [path.name for path in (folder / SEGMENTS_NAME).glob("*")]
    numbers = [int(name) for name in names if name.isascii() and name.isdigit()]
    return [number for number in numbers if segment_name(number) in names]
