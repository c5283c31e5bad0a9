"""An opened segment: its stores, and which of its documents are live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dupmae.engine.deletes import read_live
from dupmae.engine.manifest import (
    DOCUMENTS_NAME,
    FORWARD_NAME,
    OUTLINE_NAME,
    SEGMENTS_NAME,
    Manifest,
    SegmentRecord,
    damaged,
)
from dupmae.indexes.base import DenseIndex, SparseIndex
from dupmae.indexes.documents import DocumentStore
from dupmae.indexes.faiss_store import FaissFlat
from dupmae.indexes.forward import ForwardStore
from dupmae.indexes.outline import DenseOutline
from dupmae.indexes.sparse import open_sparse
from dupmae.types import Bool, Document, Encoded, Int64, SparseVectors


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """The stores of a segment, over all documents that were written; `live` (N,) if some are not.

    A segment of format 3 has no outline, and is searched by lists.

    Nothing of it changes, so any number of threads and of states may share it.
    """

    record: SegmentRecord
    forward: ForwardStore
    dense: DenseIndex
    sparse: SparseIndex
    documents: DocumentStore
    outline: DenseOutline | None
    live: Bool | None

    @classmethod
    def open(cls, folder: Path, record: SegmentRecord) -> Segment:
        """Open the files that the manifest of an index folder names.

        Raises:
            IndexMissingError: if one is missing or damaged.
        """
        place = folder / SEGMENTS_NAME / record.name
        live = read_live(folder, record)
        forward = ForwardStore.open(place / FORWARD_NAME)
        sparse = open_sparse(place)
        has_outline = (place / OUTLINE_NAME).is_dir()
        outline = DenseOutline.open(place / OUTLINE_NAME, forward.dense) if has_outline else None
        documents = DocumentStore.open(place / DOCUMENTS_NAME)
        counts = (len(forward), len(sparse), len(documents))
        if set(counts) != {record.documents}:
            documents.close()
            raise damaged(
                folder,
                f"the manifest counts {record.documents} documents in segment {record.name}, "
                f"its vectors, terms and texts {counts}",
            )
        return cls(record, forward, FaissFlat(forward.dense), sparse, documents, outline, live)

    def __len__(self) -> int:
        return len(self.forward)

    def at(self, folder: Path, record: SegmentRecord) -> Segment:
        """Return the segment as a later state has it; it shares all stores."""
        if record == self.record:
            return self
        return replace(self, record=record, live=read_live(folder, record))

    def live_ordinals(self) -> Int64:
        """Return the ordinals of the documents that are not deleted, rising."""
        return np.arange(len(self)) if self.live is None else np.flatnonzero(self.live)

    def find(self, doc_ids: Sequence[str]) -> dict[str, int]:
        """Return the ordinals of those ids that live documents have."""
        found = self.documents.find(doc_ids)
        if self.live is None:
            return found
        return {doc_id: ordinal for doc_id, ordinal in found.items() if self.live[ordinal]}

    def texts(self, size: int) -> Iterator[list[Document]]:
        """Yield the live documents in order, `size` at a time."""
        ordinals = self.live_ordinals()
        for start in range(0, len(ordinals), size):
            yield self.documents.get(ordinals[start : start + size])

    def vectors(self, size: int) -> Iterator[Encoded]:
        """Yield copies of the live documents' vectors in order, `size` at a time."""
        ordinals = self.live_ordinals()
        for start in range(0, len(ordinals), size):
            block = ordinals[start : start + size]
            rows = [self.forward.sparse.row(ordinal) for ordinal in block.tolist()]
            yield Encoded(self.forward.dense[block], SparseVectors.from_rows(rows))
            self.forward.release_pages()


def open_segments(
    folder: Path, manifest: Manifest, opened: Mapping[str, Segment]
) -> dict[str, Segment]:
    """Open the segments of a state by name; those that are open already are used again.

    An index may have been made anew in the folder's place, with the same names for other files.

    Raises:
        IndexMissingError: if a file is missing or damaged.
    """
    segments = {}
    for record in manifest.segments:
        known = opened.get(record.name)
        if known is not None and known.record.files == record.files:
            segments[record.name] = known.at(folder, record)
        else:
            segments[record.name] = Segment.open(folder, record)
    return segments
