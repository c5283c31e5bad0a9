"""Building and updating an index folder from a stream of documents, in memory of a few blocks.

Both write a new segment, and make it live by their last step, the manifest. Whatever ends them
before, ctrl-C, a full disk, a bad document, a kill, the old index stands as it was, and what was
encoded is kept: the next build of the same encoder goes on after the last block whose documents are
still the same, with the same result as if it had never stopped (see `journal.py`).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace as changed
from pathlib import Path

from dupmae.engine.borrow import Borrow, usual_borrow
from dupmae.engine.canaries import Canaries, check_canaries, make_canaries
from dupmae.engine.chunking import Chunk, check_chunk
from dupmae.engine.deletes import delete, live_without
from dupmae.engine.journal import JOURNAL_NAME, Journal, Plan
from dupmae.engine.leftovers import next_segment, refuse_other_files, remove_leftovers
from dupmae.engine.lock import writer_lock
from dupmae.engine.manifest import (
    DOCUMENTS_NAME,
    MANIFEST_NAME,
    Manifest,
    SegmentRecord,
    now,
    read_manifest,
    write_manifest,
)
from dupmae.engine.merge import merge_if_due
from dupmae.engine.segment import Derived, open_reading, open_vectors, write_segment
from dupmae.engine.stored_files import SEGMENTS_NAME
from dupmae.engine.vectors import VectorFiles
from dupmae.errors import DupMAEError, IndexMissingError, SealError, UsageError
from dupmae.indexes.documents import DocumentStore
from dupmae.indexes.sparse import DEFAULT_SPARSE, check_sparse
from dupmae.types import Document, ReadingEncoder, TextEncoder

BLOCK_SIZE = 512
"""Documents encoded at once: enough for an encoder to sort them by length before it pads, and what
a killed build loses at most."""

_IDS = 1024
"""Ids read at a time."""

logger = logging.getLogger(__name__)


def build_index(
    documents: Iterable[Document],
    encoder: TextEncoder | VectorFiles,
    folder: Path | str,
    *,
    block_size: int = BLOCK_SIZE,
    replace: bool = False,
    total: int | None = None,
    sparse: str | None = None,
    hnsw: bool | None = None,
    chunk: Chunk | None = None,
    borrow: Borrow | bool | None = None,
) -> Manifest:
    """Index documents in a folder, or add them to the index that is there.

    Ordinals follow their order. A document whose id the index has already takes that one's place in
    answers, and its own at the end of the order.

    Args:
        documents: read once, in a thread of its own; an error that reading raises ends the build
            and passes through.
        encoder: gives the vectors, or files of vectors that it has made; its seal goes into the
            manifest.
        folder: absent, empty, an index, or what a stopped build has left.
        block_size: documents encoded at once, ≥ 1; changes memory and speed only.
        replace: whether to begin anew where an index is. It stands until the new one is complete,
            so the disk must hold both.
        total: number of documents, if known, to tell the time left.
        sparse: which store finds sparse candidates, of `SPARSE_STORES`; answers are the same. If
            not given, the one of the index there, else `DEFAULT_SPARSE`.
        hnsw: whether to make a graph for the mode "fast" of `SearchEngine.search`. If not given, as
            the index there, else not.
        chunk: how to split documents into passages, each with vectors of its own. If not given, as
            the index there does, else not at all.
        borrow: how documents borrow terms from their neighbours in the index; False: not at all.
            If not given, as the index there does, else as is usual for the encoder.

    Returns:
        The manifest of the new state.

    Raises:
        UsageError: if the folder holds other files, there is no such sparse store, or documents
            cannot be split like that by this encoder, or in this index.
        SealError: if it holds an index of another encoder, or this one makes other vectors by now,
            and `replace` is not set.
        IndexMissingError: if it holds a damaged index and `replace` is not set.
        DataError: if there are no documents or an id repeats, or vectors are not of them.
        DupMAEError: if the disk is full or cannot be written, another writer is at work there, or
            what the sparse store needs is not installed.
    """
    folder = Path(folder)
    if block_size < 1:
        raise UsageError(f"block_size must be at least 1, found {block_size}")
    refuse_other_files(folder)
    kept: int | None = 0
    try:
        with writer_lock(folder):
            before = _state(folder, replace)
            kept_state = None if replace else before
            chunk, lent = _settings(folder, kept_state, encoder, chunk, borrow)
            plan = changed(_plan(encoder, block_size, chunk), borrow=lent)
            if before is not None and not replace:
                _check_seal(folder, before, plan)
            canaries = _canaries(folder, kept_state, encoder)
            there = _derived_there(folder, before)
            derived = Derived(sparse or there.sparse, there.hnsw if hnsw is None else hnsw)
            check_sparse(derived.sparse)
            resumes = not isinstance(encoder, VectorFiles)
            journal = (resumes and _unfinished(folder, before, plan)) or _begin(
                folder, before, plan
            )
            try:
                record = write_segment(
                    folder, documents, encoder, journal, derived, before=kept_state, total=total
                )
                manifest = changed(
                    _next_state(folder, before, record, plan, replace), canaries=canaries
                )
                write_manifest(folder, manifest)
                journal.remove()
            except BaseException as error:  # ctrl-C too
                kept = _leave(folder, journal)
                if kept and not isinstance(error, OSError):
                    logger.warning(
                        "stopped after %d documents; the same command goes on from there", kept
                    )
                raise
            remove_leftovers(folder, manifest)
            return merge_if_due(folder, manifest)
    except OSError as error:
        what = "an index that was there is unchanged"
        if kept is None:
            what = "yet it is complete"
        elif kept:
            what += f"; the same command goes on after {kept} documents"
        raise DupMAEError(f"index {folder} could not be built: {error}; {what}") from error


def _plan(encoder: TextEncoder | VectorFiles, block_size: int, chunk: Chunk | None) -> Plan:
    if chunk is not None:
        check_chunk(chunk, encoder)
    return Plan(
        segment="",  # named when the build begins
        encoder_name=encoder.name,
        encoder_seal=encoder.seal,
        dense_dim=encoder.dense_dim,
        vocabulary_size=encoder.vocabulary_size,
        block_size=block_size,
        reading=isinstance(encoder, ReadingEncoder),
        chunk=chunk,
    )


def _state(folder: Path, replace: bool) -> Manifest | None:
    """Return the state of the index that stands there; None if there is none to add to.

    Raises:
        IndexMissingError: if it is damaged and must not be replaced.
    """
    try:
        return read_manifest(folder)
    except IndexMissingError:
        if replace or not (folder / MANIFEST_NAME).exists():
            return None
        raise


def _settings(
    folder: Path,
    before: Manifest | None,
    encoder: TextEncoder | VectorFiles,
    chunk: Chunk | None,
    borrow: Borrow | bool | None,
) -> tuple[Chunk | None, Borrow | None]:
    """Return how documents that are added to a state are split and borrow; None: a new index.

    Raises:
        UsageError: if the documents that are there do otherwise.
    """
    usual = encoder.borrow if isinstance(encoder, VectorFiles) else usual_borrow(encoder)
    there = None if before is None else before.borrow
    if borrow is True:
        borrow = there or usual or Borrow()
    if before is None:
        return chunk, usual if borrow is None else borrow or None
    for asked, is_there, said in (
        (chunk, before.chunk, f"holds {before.chunk or 'whole documents'}"),
        (borrow, there or False, f"has {there or 'no borrowed terms'}"),
    ):
        if asked not in (None, is_there):
            raise UsageError(
                f"index {folder} {said}, not {asked or 'none'}; add to it without a setting, or "
                "use --replace to build the index anew"
            )
    return before.chunk, there


def _derived_there(folder: Path, before: Manifest | None) -> Derived:
    """Return what the newest segment has to find candidates in; what a new index has."""
    if before is None or not before.segments:
        return Derived(DEFAULT_SPARSE, hnsw=False)
    return Derived.of(folder / SEGMENTS_NAME / before.segments[-1].name)


def _check_seal(folder: Path, manifest: Manifest, plan: Plan) -> None:
    if manifest.encoder_seal != plan.encoder_seal:
        raise SealError(
            f"index {folder} holds documents by encoder {manifest.encoder_name} "
            f"(seal {manifest.encoder_seal[:12]}), to which {plan.encoder_name} "
            f"(seal {plan.encoder_seal[:12]}) cannot add; load that encoder, or use --replace to "
            "build the index anew"
        )


def _canaries(
    folder: Path, before: Manifest | None, encoder: TextEncoder | VectorFiles
) -> Canaries | None:
    """Return the canaries of the state to come: those that are there, else the encoder's own.

    Raises:
        SealError: if the encoder does not agree with those that are there.
    """
    known = None if before is None else before.canaries
    if isinstance(encoder, VectorFiles):
        return known
    check_canaries(folder, known, encoder)
    return known or make_canaries(encoder)


def _unfinished(folder: Path, before: Manifest | None, plan: Plan) -> Journal | None:
    """Return the journal of a stopped build of the same vectors, if its blocks are there."""
    journal = Journal.read(folder)
    if journal is None or not journal.blocks or _is_live(journal, before):
        return None
    if before is None and (folder / MANIFEST_NAME).exists():
        return None  # with a damaged manifest nobody knows what is live
    if not journal.plan.same_vectors(plan):
        logger.warning(
            "%s holds the %d first documents of a build that was stopped, by encoder %s (seal %s) "
            "in blocks of %d, split into %s; it is begun anew",
            folder,
            journal.done.documents,
            journal.plan.encoder_name,
            journal.plan.encoder_seal[:12],
            journal.plan.block_size,
            journal.plan.chunk or "nothing",
        )
        return None
    try:
        for begin in (open_vectors, open_reading):
            begin(_place(folder, journal), plan, journal.done).abandon()
    except IndexMissingError as error:
        logger.warning("%s: what a stopped build has left is damaged (%s)", folder, error)
        return None
    journal.cut(len(journal.blocks))  # a line that was not written to its end goes
    _clean(folder, before)
    return journal


def _begin(folder: Path, before: Manifest | None, plan: Plan) -> Journal:
    """Begin a new segment; remove what stopped builds have left."""
    (folder / JOURNAL_NAME).unlink(missing_ok=True)  # before the segment that it is about
    _clean(folder, before)
    return Journal.begin(folder, changed(plan, segment=next_segment(folder, before)))


def _clean(folder: Path, before: Manifest | None) -> None:
    if before is not None or not (folder / MANIFEST_NAME).exists():
        remove_leftovers(folder, before)  # with a damaged manifest any file may be worth saving


def _is_live(journal: Journal, manifest: Manifest | None) -> bool:
    segments = () if manifest is None else manifest.segments
    return journal.plan.segment in {segment.name for segment in segments}


def _place(folder: Path, journal: Journal) -> Path:
    return folder / SEGMENTS_NAME / journal.plan.segment


def _next_state(
    folder: Path, before: Manifest | None, record: SegmentRecord, plan: Plan, replace: bool
) -> Manifest:
    """Return the state with a new segment; its documents replace those of the same ids, or all."""
    generation = max(int(record.name), 0 if before is None else before.generation + 1)
    segments: tuple[SegmentRecord, ...] = ()
    if before is not None and not replace:
        live = live_without(folder, before, _ids(folder, record), missing_ok=True)
        segments = delete(folder, before, generation, live)
    return Manifest(
        generation=generation,
        created=now(),
        encoder_name=plan.encoder_name,
        encoder_seal=plan.encoder_seal,
        dense_dim=plan.dense_dim,
        vocabulary_size=plan.vocabulary_size,
        segments=(*segments, record),
        chunk=plan.chunk,
        borrow=plan.borrow,
    )


def _ids(folder: Path, record: SegmentRecord) -> Iterator[str]:
    """Yield the ids of a segment's documents."""
    path = folder / SEGMENTS_NAME / record.name / DOCUMENTS_NAME
    with closing(DocumentStore.open(path)) as texts:
        for start in range(0, len(texts), _IDS):
            yield from texts.ids(range(start, min(start + _IDS, len(texts))))


def _leave(folder: Path, journal: Journal) -> int | None:
    """Keep what a build that was ended has encoded, and return how many documents; or clean up.

    None if it was ended when all was done.
    """
    with suppress(IndexMissingError):
        if _is_live(journal, read_manifest(folder)):
            return None
    written = Journal.read(folder)  # may have a line more than `journal`, if ctrl-C came right then
    if written is not None and written.blocks:
        return written.done.documents
    journal.remove()
    shutil.rmtree(_place(folder, journal), ignore_errors=True)
    with suppress(OSError):  # not empty
        (folder / SEGMENTS_NAME).rmdir()
    return 0
