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
    HNSW_NAME,
    OUTLINE_NAME,
    Manifest,
    SegmentRecord,
)
from dupmae.engine.reading import READING_NAME, BlockReading, Reading
from dupmae.engine.stored_files import SEGMENTS_NAME, damaged
from dupmae.errors import IndexMissingError
from dupmae.indexes.base import DenseIndex, SparseIndex
from dupmae.indexes.documents import DocumentStore
from dupmae.indexes.faiss_store import FaissFlat
from dupmae.indexes.forward import ForwardStore
from dupmae.indexes.hnsw import NearGraph
from dupmae.indexes.outline import DenseOutline
from dupmae.indexes.sparse import open_sparse
from dupmae.types import Bool, Document, Encoded, Int64, Passage, SparseVectors


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """The stores of a segment, over all documents that were written; `live` (N,) if some are not.

    Vectors are numbered from 0 in the order of documents: where these are split into passages each
    has several, else one of its own number. `reading` is None where nobody knows how they were
    read. A segment of format 3 has no `outline`, and is searched by lists; one may have a `graph`
    for answers without proof. Nothing of a segment changes, so any number of threads and of states
    may share it.
    """

    record: SegmentRecord
    forward: ForwardStore
    dense: DenseIndex
    sparse: SparseIndex
    documents: DocumentStore
    reading: Reading | None
    outline: DenseOutline | None
    graph: NearGraph | None
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
        documents = DocumentStore.open(place / DOCUMENTS_NAME)
        try:
            reading = Reading.open(place / READING_NAME, record.documents)
            has_outline = (place / OUTLINE_NAME).is_dir()
            outline = (
                DenseOutline.open(place / OUTLINE_NAME, forward.dense) if has_outline else None
            )
            has_graph = (place / HNSW_NAME).is_dir()
            graph = NearGraph.open(place / HNSW_NAME, forward.dense) if has_graph else None
            passages = None if reading is None else reading.count_passages(None)
            vectors = record.documents if passages is None else passages
            counts = (len(forward), len(sparse), len(outline or forward), len(documents))
            if counts != (vectors, vectors, vectors, record.documents):
                raise damaged(
                    folder,
                    f"the manifest counts {record.documents} documents in segment {record.name}, "
                    f"which should have {vectors} vectors; its vectors, terms, outline and texts "
                    f"{counts}",
                )
            if (passages is None) != (record.passages is None):
                raise damaged(folder, f"segment {record.name} should have no passages, or all")
        except IndexMissingError:
            documents.close()
            raise
        dense = FaissFlat(forward.dense)
        return cls(record, forward, dense, sparse, documents, reading, outline, graph, live)

    def __len__(self) -> int:
        return self.record.documents

    def at(self, folder: Path, record: SegmentRecord) -> Segment:
        """Return the segment as a later state has it; it shares all stores."""
        if record == self.record:
            return self
        return replace(self, record=record, live=read_live(folder, record))

    def live_ordinals(self) -> Int64:
        """Return the ordinals of the documents that are not deleted, rising."""
        return np.arange(len(self)) if self.live is None else np.flatnonzero(self.live)

    def rows_of(self, documents: Int64) -> Int64:
        """Return the ordinals of the vectors of some documents, in their order."""
        return documents if self.reading is None else self.reading.rows_of(documents)

    def count_rows(self, documents: Int64) -> Int64:
        """Return how many vectors each of some documents has."""
        if self.reading is None or self.reading.indptr is None:
            return np.ones(len(documents), dtype=np.int64)
        return self.reading.indptr[documents + 1] - self.reading.indptr[documents]

    def live_rows(self) -> Int64:
        """Return the ordinals of the vectors of documents that are not deleted, rising."""
        return self.rows_of(self.live_ordinals())

    def is_live_row(self) -> Bool | None:
        """Return which vectors, (n,), are of documents that are not deleted; None if all are."""
        if self.live is None:
            return None
        is_live = np.zeros(len(self.forward), dtype=np.bool_)
        is_live[self.live_rows()] = True
        return is_live

    def passage(self, row: int) -> Passage | None:
        """Return which passage a vector is of; None if documents are not split."""
        return None if self.reading is None else self.reading.passage(row)

    def truncated(self) -> Bool:
        """Return which documents, (N,), are known to be read in part only."""
        truncated = np.zeros(len(self), dtype=np.bool_)
        if self.reading is not None:
            truncated[self.reading.truncated] = True
        return truncated

    def find(self, doc_ids: Sequence[str]) -> dict[str, int]:
        """Return the ordinals of those ids that live documents have."""
        found = self.documents.find(doc_ids)
        if self.live is None:
            return found
        return {doc_id: ordinal for doc_id, ordinal in found.items() if self.live[ordinal]}

    def may_be_truncated(self, documents: Int64) -> Bool:
        """Return which of some documents, (n,), are not known to be read whole."""
        if self.reading is None:
            return np.ones(len(documents), dtype=np.bool_)
        return np.isin(documents, self.reading.truncated)

    def texts(self, size: int) -> Iterator[list[Document]]:
        """Yield the live documents in order, `size` at a time."""
        ordinals = self.live_ordinals()
        for start in range(0, len(ordinals), size):
            yield self.documents.get(ordinals[start : start + size])

    def readings(self, size: int) -> Iterator[BlockReading]:
        """Yield how the live documents were read, in order, `size` at a time."""
        ordinals, truncated = self.live_ordinals(), self.truncated()
        for start in range(0, len(ordinals), size):
            block = ordinals[start : start + size]
            spans = None if self.reading is None else self.reading.spans_of(block)
            yield BlockReading(truncated[block], spans)

    def vectors(self, size: int) -> Iterator[Encoded]:
        """Yield copies of the live documents' vectors in order, `size` vectors at a time.

        What they have borrowed is left out.
        """
        ordinals = self.live_rows()
        for start in range(0, len(ordinals), size):
            block = ordinals[start : start + size]
            rows = [self.forward.own_row(ordinal) for ordinal in block.tolist()]
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
