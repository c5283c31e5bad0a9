"""Writing the files of one segment: read → tokenise → encode → write, one block after the other.

While a block is encoded and written, the next one is read and tokenised. Memory is bounded by a few
blocks, whatever the size of the corpus.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dupmae.engine.corpus import CorpusHash
from dupmae.engine.journal import Checkpoint, Journal
from dupmae.engine.manifest import (
    DOCUMENTS_NAME,
    FORWARD_NAME,
    OUTLINE_NAME,
    SEGMENTS_NAME,
    SegmentRecord,
    StoredFile,
    describe_file,
)
from dupmae.engine.memory import release_free_memory, resident_bytes
from dupmae.engine.opened import Segment
from dupmae.engine.pipeline import read_ahead
from dupmae.engine.vectors import VectorFiles
from dupmae.errors import DataError
from dupmae.files import flush
from dupmae.indexes.documents import DocumentWriter
from dupmae.indexes.forward import ForwardStore, ForwardWriter
from dupmae.indexes.outline import DenseOutline
from dupmae.indexes.sparse import build_sparse, sparse_name
from dupmae.types import Document, Encoded, TextEncoder, TokenisingEncoder

_MERGED = 512
"""Documents copied at a time."""

logger = logging.getLogger(__name__)


def write_segment(
    folder: Path,
    documents: Iterable[Document],
    source: TextEncoder | VectorFiles,
    journal: Journal,
    sparse: str,
    *,
    total: int | None = None,
) -> SegmentRecord:
    """Write all files of a segment, safe on the disk.

    Args:
        folder: of the index; what the journal says is in the segment is not made again.
        documents: read once, in another thread once all blocks of the journal are read again.
        source: of the vectors.
        journal: of this build. Vectors that come from files are not noted in it: to read them
            again takes no longer than to make sure that they are the same.
        sparse: the name of the sparse store.
        total: number of documents, if known, to tell the time left.

    Raises:
        DataError: if there are no documents or an id repeats, or the vectors are not of them.
        OSError: if the disk is full or fails.
    """
    plan = journal.plan
    segment = folder / SEGMENTS_NAME / plan.segment
    segment.mkdir(parents=True, exist_ok=True)
    with DocumentWriter(segment / DOCUMENTS_NAME) as texts:
        blocks, digest = _read_again(_blocks(documents, plan.block_size), journal, texts)
        keep = (journal.done.documents, journal.done.nonzeros)
        with ForwardWriter(
            segment / FORWARD_NAME, plan.dense_dim, plan.vocabulary_size, keep=keep
        ) as vectors:
            for block, encoded in _encoded(blocks, source, texts, total):
                vectors.add(encoded)
                digest.add_all(block)
                if not isinstance(source, VectorFiles):
                    vectors.sync()
                    done = Checkpoint(len(vectors), vectors.nonzeros, digest.hexdigest())
                    journal.append(done)
    if len(texts) == 0:
        raise DataError("there are no documents to index")
    if isinstance(source, VectorFiles):
        source.check_all_used()
    return _finish(folder, plan.segment, sparse, digest)


def merge_segments(folder: Path, name: str, segments: Sequence[Segment]) -> SegmentRecord:
    """Write one segment of the live documents of some, in their order; nothing is encoded.

    Args:
        folder: of the index.
        name: of the new segment; its sparse store is of the kind that the last of the others has.
        segments: at least one document of all is live.

    Raises:
        OSError: if the disk is full or fails.
    """
    place = folder / SEGMENTS_NAME / name
    place.mkdir(parents=True)
    forward, digest = segments[0].forward, CorpusHash()
    with (
        DocumentWriter(place / DOCUMENTS_NAME) as texts,
        ForwardWriter(place / FORWARD_NAME, forward.dim, len(forward.frequency)) as vectors,
    ):
        for segment in segments:
            for block in segment.texts(_MERGED):
                texts.add(block)
                digest.add_all(block)
            for encoded in segment.vectors(_MERGED):
                vectors.add(encoded)
    newest = folder / SEGMENTS_NAME / segments[-1].record.name
    return _finish(folder, name, sparse_name(newest), digest)


def _finish(folder: Path, name: str, sparse: str, digest: CorpusHash) -> SegmentRecord:
    """Derive the outline and the sparse store from the vectors, and describe what was written."""
    place = folder / SEGMENTS_NAME / name
    forward = ForwardStore.open(place / FORWARD_NAME)
    DenseOutline.build(place / OUTLINE_NAME, forward.dense)
    build_sparse(place, sparse, forward.sparse, len(forward.frequency))
    return SegmentRecord(
        name=name,
        documents=len(forward),
        deleted=0,
        corpus_hash=digest.hexdigest(),
        files=_described(folder, place),
        deletes=None,
    )


def _described(folder: Path, place: Path) -> tuple[StoredFile, ...]:
    """Flush all files of a finished segment to the disk and return their sizes and checksums."""
    paths = sorted(place.rglob("*"))
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
    texts: DocumentWriter,
    total: int | None,
) -> Iterator[tuple[list[Document], Encoded]]:
    """Yield blocks with their vectors, once their texts are written; show how far it is."""
    prepare, finish = _steps(source)
    progress = tqdm(total=total, initial=len(texts), desc="index", unit="doc", disable=None)
    with progress, closing(read_ahead(blocks, prepare)) as ahead:
        for block, prepared in ahead:
            texts.add(block)  # first, since a repeated id is found before the block is encoded
            yield block, finish(prepared)
            release_free_memory()
            progress.set_postfix_str(_memory(), refresh=False)
            progress.update(len(block))


def _steps(
    source: TextEncoder | VectorFiles,
) -> tuple[Callable[[Sequence[Document]], Any], Callable[[Any], Encoded]]:
    """Return what is done with a block while the last one is encoded, and what with that."""
    if isinstance(source, VectorFiles):
        return source.vectors, lambda encoded: encoded
    if isinstance(source, TokenisingEncoder):
        tokenise = source.tokenise_documents
        return lambda block: tokenise(_contents(block)), source.encode_tokenised
    return _contents, source.encode_documents


def _contents(block: Sequence[Document]) -> list[str]:
    return [document.content for document in block]


def _memory() -> str:
    resident = resident_bytes()
    return "" if resident is None else f"{resident / 1e6:.0f} MB"


def _blocks(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while block := list(islice(iterator, size)):
        yield block
