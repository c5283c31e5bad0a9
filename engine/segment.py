"""Writing the files of one segment: read → tokenise → encode → write, one block after the other.

While a block is encoded and written, the next one is read and tokenised. Memory is bounded by a few
blocks, whatever the size of the corpus.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dupmae.engine.borrow import Borrow
from dupmae.engine.chunking import Chunk, read_passages
from dupmae.engine.corpus import CorpusHash
from dupmae.engine.journal import Checkpoint, Journal, Plan
from dupmae.engine.lending import add_borrowed, write_borrowed
from dupmae.engine.manifest import (
    DOCUMENTS_NAME,
    FORWARD_NAME,
    HNSW_NAME,
    OUTLINE_NAME,
    Manifest,
    SegmentRecord,
)
from dupmae.engine.memory import release_free_memory, resident_bytes
from dupmae.engine.opened import Segment
from dupmae.engine.pipeline import read_ahead
from dupmae.engine.reading import READING_NAME, BlockReading, Reading, ReadingWriter
from dupmae.engine.stored_files import ENCODED_NAME, SEGMENTS_NAME, StoredFile, describe_file
from dupmae.engine.vectors import VectorFiles
from dupmae.errors import DataError
from dupmae.files import flush
from dupmae.indexes.documents import DocumentWriter
from dupmae.indexes.forward import ForwardStore, ForwardWriter
from dupmae.indexes.hnsw import NearGraph
from dupmae.indexes.outline import DenseOutline
from dupmae.indexes.sparse import build_sparse, sparse_name
from dupmae.types import (
    Document,
    Encoded,
    Int64,
    ReadingEncoder,
    TextEncoder,
    TokenisingEncoder,
)

_MERGED = 512
"""Documents copied at a time."""
_CHARACTERS = 2_000_000
"""Of documents that are split, in a block: their passages have a few times as many tokens in all
as those of a block that is not."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Derived:
    """What is made of a segment's vectors, beside the outline, to find candidates in."""

    sparse: str
    """Name of the sparse store."""
    hnsw: bool
    """Whether there is a graph, for answers without proof."""

    @classmethod
    def of(cls, segment: Path) -> Derived:
        """Return what a segment's folder holds.

        Raises:
            IndexMissingError: if it holds no sparse store.
        """
        return cls(sparse_name(segment), (segment / HNSW_NAME).is_dir())


def write_segment(
    folder: Path,
    documents: Iterable[Document],
    source: TextEncoder | VectorFiles,
    journal: Journal,
    derived: Derived,
    *,
    before: Manifest | None = None,
    total: int | None = None,
) -> SegmentRecord:
    """Write all files of a segment, safe on the disk.

    Args:
        folder: of the index; what the journal says is in the segment is not made again.
        documents: read once, in another thread once all blocks of the journal are read again.
        source: of the vectors.
        journal: of this build. Vectors that come from files are not noted in it: to read them
            again takes no longer than to make sure that they are the same.
        derived: what else to make of the vectors.
        before: the state that the segment is for; of whose documents it borrows, if it does.
        total: number of documents, if known, to tell the time left.

    Raises:
        DataError: if there are no documents or an id repeats, or the vectors are not of them.
        OSError: if the disk is full or fails.
    """
    plan = journal.plan
    segment = folder / SEGMENTS_NAME / plan.segment
    segment.mkdir(parents=True, exist_ok=True)
    with DocumentWriter(segment / DOCUMENTS_NAME) as texts:
        split = _blocks(documents, plan.block_size, plan.chunk)
        blocks, digest = _read_again(split, journal, texts)
        with (
            open_reading(segment, plan, journal.done) as reading,
            open_vectors(segment, plan, journal.done) as vectors,
        ):
            for block, read, encoded in _encoded(blocks, source, plan.chunk, texts, total):
                vectors.add(encoded)
                reading.add(read)
                digest.add_all(block)
                if not isinstance(source, VectorFiles):
                    vectors.sync()
                    reading.sync()
                    journal.append(
                        Checkpoint(
                            documents=len(texts),
                            vectors=len(vectors),
                            nonzeros=vectors.nonzeros,
                            truncated=reading.truncated,
                            corpus_hash=digest.hexdigest(),
                        )
                    )
    if len(texts) == 0:
        raise DataError("there are no documents to index")
    if isinstance(source, VectorFiles):
        source.check_all_used()
    if plan.borrow is not None:
        write_borrowed(segment, folder, before, plan.borrow)
    return _finish(folder, plan.segment, derived, len(texts), digest)


def open_vectors(segment: Path, plan: Plan, done: Checkpoint) -> ForwardWriter:
    """Begin to write vectors, behind those of a stopped build.

    Raises:
        IndexMissingError: if these are not there.
    """
    keep = (done.vectors, done.nonzeros)
    place = segment / (ENCODED_NAME if plan.borrow else FORWARD_NAME)
    return ForwardWriter(place, plan.dense_dim, plan.vocabulary_size, keep=keep)


def open_reading(segment: Path, plan: Plan, done: Checkpoint) -> ReadingWriter:
    """Begin to write how documents are read, behind those of a stopped build, as `open_vectors`."""
    return ReadingWriter(
        segment / READING_NAME,
        is_known=plan.reading,
        is_split=plan.chunk is not None,
        keep=(done.documents, done.vectors, done.truncated),
    )


def merge_segments(
    folder: Path,
    name: str,
    segments: Sequence[Segment],
    borrow: Borrow | None = None,
    older: Sequence[Segment] = (),
) -> SegmentRecord:
    """Write one segment of the live documents of some, in their order; nothing is encoded.

    Args:
        folder: of the index.
        name: of the new segment, which has the kinds of stores that the last of the others has.
        segments: at least one document of all is live.
        borrow: how these documents borrow terms, which they do anew; None: not at all.
        older: whose live documents lend too.

    Raises:
        OSError: if the disk is full or fails.
    """
    place = folder / SEGMENTS_NAME / name
    place.mkdir(parents=True)
    forward, digest = segments[0].forward, CorpusHash()
    is_known = all(segment.reading is not None for segment in segments)
    is_split = segments[0].record.passages is not None
    with (
        DocumentWriter(place / DOCUMENTS_NAME) as texts,
        ForwardWriter(
            place / FORWARD_NAME, forward.dim, len(forward.frequency), borrows=borrow is not None
        ) as vectors,
        ReadingWriter(place / READING_NAME, is_known=is_known, is_split=is_split) as reading,
    ):
        for segment in segments:
            for read in segment.readings(_MERGED):
                reading.add(read)
            for block in segment.texts(_MERGED):
                texts.add(block)
                digest.add_all(block)
            if borrow is None:
                for encoded in segment.vectors(_MERGED):
                    vectors.add(encoded)
        if borrow is not None:
            add_borrowed(vectors, older, segments, borrow)
    newest = folder / SEGMENTS_NAME / segments[-1].record.name
    return _finish(folder, name, Derived.of(newest), len(texts), digest)


def _finish(
    folder: Path, name: str, derived: Derived, documents: int, digest: CorpusHash
) -> SegmentRecord:
    """Derive from the vectors what finds candidates, and describe all that was written."""
    place = folder / SEGMENTS_NAME / name
    forward = ForwardStore.open(place / FORWARD_NAME)
    DenseOutline.build(place / OUTLINE_NAME, forward.dense)
    shutil.rmtree(place / HNSW_NAME, ignore_errors=True)  # what a stopped build may have left
    if derived.hnsw:
        NearGraph.build(place / HNSW_NAME, forward.dense)
    build_sparse(place, derived.sparse, forward.sparse, len(forward.frequency))
    reading = Reading.open(place / READING_NAME, documents)
    return SegmentRecord(
        name=name,
        documents=documents,
        deleted=0,
        corpus_hash=digest.hexdigest(),
        files=_described(folder, place),
        deletes=None,
        truncated=None if reading is None else reading.count_truncated(None),
        passages=None if reading is None else reading.count_passages(None),
    )


def _described(folder: Path, place: Path) -> tuple[StoredFile, ...]:
    """Flush all files of a finished segment to the disk and return their sizes and checksums."""
    encoded = place / ENCODED_NAME  # gone as soon as the manifest is there
    paths = sorted(path for path in place.rglob("*") if encoded not in (path, path.parent))
    for path in [*paths, place, place.parent, folder]:
        flush(path)
    return tuple(describe_file(folder, path) for path in paths if path.is_file())


def _read_again(
    blocks: Iterator[list[Document]], journal: Journal, texts: DocumentWriter
) -> tuple[Iterator[list[Document]], CorpusHash]:
    """Read the documents that are encoded already, and return the others' blocks.

    The journal loses its checkpoints from the first block on that is not the same any more.
    """
    digest = CorpusHash()
    for count, done in enumerate(journal.blocks):
        block = next(blocks, [])
        longer = digest.copy()
        longer.add_all(block)
        if longer.hexdigest() != done.corpus_hash:
            logger.warning(
                "the corpus is not the same any more after document %d: going on from there",
                len(texts),
            )
            journal.cut(count)
            return chain([block], blocks), digest
        texts.add(block)
        digest = longer
    if journal.blocks:
        logger.warning("going on after %d documents that are encoded already", len(texts))
    return blocks, digest


def _encoded(
    blocks: Iterator[list[Document]],
    source: TextEncoder | VectorFiles,
    chunk: Chunk | None,
    texts: DocumentWriter,
    total: int | None,
) -> Iterator[tuple[list[Document], BlockReading, Encoded]]:
    """Yield blocks, how they were read, and vectors, once their texts are written.

    Shows how far it is.
    """
    prepare, finish = _steps(source, chunk)
    progress = tqdm(total=total, initial=len(texts), desc="index", unit="doc", disable=None)
    with progress, closing(read_ahead(blocks, prepare)) as ahead:
        for block, (prepared, truncated, spans) in ahead:
            texts.add(block)  # first, since a repeated id is found before the block is encoded
            reading = BlockReading(np.array(truncated, dtype=np.bool_), spans)
            yield block, reading, finish(prepared)
            release_free_memory()
            progress.set_postfix_str(_memory(), refresh=False)
            progress.update(len(block))


_Prepared = tuple[Any, list[bool], list[Int64] | None]
"""What is to be encoded, which documents are truncated, and where their passages lie."""


def _steps(
    source: TextEncoder | VectorFiles, chunk: Chunk | None
) -> tuple[Callable[[Sequence[Document]], _Prepared], Callable[[Any], Encoded]]:
    """Return what is done with a block while the last one is encoded, and what with that.

    Where nobody knows which documents are truncated, none is said to be.
    """
    if isinstance(source, VectorFiles):
        return lambda block: (source.vectors(block), _none(block), None), lambda encoded: encoded
    if isinstance(source, ReadingEncoder):
        if chunk is not None:
            return partial(read_passages, source, chunk), source.encode_tokenised
        read = source.read_documents
        return lambda block: (*read(_contents(block)), None), source.encode_tokenised
    if isinstance(source, TokenisingEncoder):
        tokenise = source.tokenise_documents
        return lambda block: (tokenise(_contents(block)), _none(block), None), (
            source.encode_tokenised
        )
    return lambda block: (_contents(block), _none(block), None), source.encode_documents


def _none(block: Sequence[Document]) -> list[bool]:
    return [False] * len(block)


def _contents(block: Sequence[Document]) -> list[str]:
    return [document.content for document in block]


def _memory() -> str:
    resident = resident_bytes()
    return "" if resident is None else f"{resident / 1e6:.0f} MB"


def _blocks(
    documents: Iterable[Document], size: int, chunk: Chunk | None
) -> Iterator[list[Document]]:
    """Yield documents `size` at a time; where they are split fewer, if they are long."""
    limit = _CHARACTERS if chunk else math.inf
    block: list[Document] = []
    characters = 0
    for document in documents:
        block.append(document)
        characters += len(document.text)
        if len(block) == size or characters >= limit:
            yield block
            block, characters = [], 0
    if block:
        yield block
