"""Which documents lend terms to those of a segment that is being written, and their writing."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dupmae.engine.borrow import Borrow, borrow_terms
from dupmae.engine.manifest import DOCUMENTS_NAME, FORWARD_NAME, Manifest
from dupmae.engine.opened import Segment, open_segments
from dupmae.engine.rows import Rows
from dupmae.engine.stored_files import ENCODED_NAME
from dupmae.indexes.documents import DocumentStore
from dupmae.indexes.forward import ForwardStore, ForwardWriter
from dupmae.types import Int64

_IDS = 1024
"""Ids looked for at a time."""


def write_borrowed(place: Path, folder: Path, before: Manifest | None, borrow: Borrow) -> None:
    """Write `forward/` of a new segment: what is in `encoded/`, with borrowed terms.

    All live documents of the state before lend, but those that the new ones replace.

    Args:
        place: of the segment, whose texts are written.
        folder: of the index.
        before: its state.
        borrow: how documents borrow.
    """
    new = ForwardStore.open(place / ENCODED_NAME)
    opened = [] if before is None else list(open_segments(folder, before, {}).values())
    try:
        with closing(DocumentStore.open(place / DOCUMENTS_NAME)) as texts:
            older = [(segment.forward, _lenders(segment, texts)) for segment in opened]
        rows = Rows([*older, (new, np.arange(len(new)))])
        size = len(new.frequency)
        # What a stopped build may have left.
        shutil.rmtree(place / FORWARD_NAME, ignore_errors=True)
        with ForwardWriter(place / FORWARD_NAME, new.dim, size, borrows=True) as vectors:
            _add(vectors, rows, len(rows) - len(new), borrow)
    finally:
        for segment in opened:
            segment.documents.close()


def add_borrowed(
    vectors: ForwardWriter, older: Sequence[Segment], segments: Sequence[Segment], borrow: Borrow
) -> None:
    """Add the live documents of some segments, who borrow anew, of each other and of older ones."""
    lenders = [(each.forward, each.live_rows()) for each in (*older, *segments)]
    first = sum(len(rows) for _, rows in lenders[: len(older)])
    _add(vectors, Rows(lenders), first, borrow)


def _add(vectors: ForwardWriter, rows: Rows, first: int, borrow: Borrow) -> None:
    with tqdm(total=len(rows) - first, desc="borrow", unit="doc", disable=None) as progress:
        for encoded, borrowed in borrow_terms(rows, first, borrow):
            vectors.add(encoded, borrowed)
            progress.update(len(encoded))


def _lenders(segment: Segment, new: DocumentStore) -> Int64:
    """Return the rows of a segment's live documents that have none of the new ids."""
    stays = np.zeros(len(segment), dtype=np.bool_)
    stays[segment.live_ordinals()] = True
    for start in range(0, len(new), _IDS):
        found = segment.find(new.ids(range(start, min(start + _IDS, len(new)))))
        stays[list(found.values())] = False
    return segment.rows_of(np.flatnonzero(stays))
