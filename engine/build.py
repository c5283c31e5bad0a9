"""Building an index folder from a stream of documents, in memory bounded by one block.

A build writes a new segment and makes it live by its last step, the manifest. Whatever ends it
before, ctrl-C, a full disk, a bad document, the old index stands as it was. What a killed build
leaves behind is removed by the next one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from dupmae.engine.corpus import CorpusHash
from dupmae.engine.lock import LOCK_NAME, writer_lock
from dupmae.engine.manifest import (
    DOCUMENTS_NAME,
    FORWARD_NAME,
    MANIFEST_NAME,
    SEGMENTS_NAME,
    SPARSE_NAME,
    Manifest,
    describe_files,
    read_manifest,
    segment_name,
    write_manifest,
)
from dupmae.errors import DataError, DupMAEError, IndexMissingError, UsageError
from dupmae.indexes.documents import DocumentWriter
from dupmae.indexes.forward import ForwardStore, ForwardWriter
from dupmae.indexes.tantivy_store import TantivyImpactIndex
from dupmae.types import Document, TextEncoder

BLOCK_SIZE = 1024
"""Documents encoded at once: enough for an encoder to sort them by length before it pads."""


def build_index(
    documents: Iterable[Document],
    encoder: TextEncoder,
    folder: Path | str,
    *,
    block_size: int = BLOCK_SIZE,
    replace: bool = False,
    total: int | None = None,
) -> Manifest:
    """Index documents in a folder; ordinals follow their order.

    Args:
        documents: read once; an error that reading raises ends the build and passes through.
        encoder: gives the vectors; its seal goes into the manifest.
        folder: absent, empty, or an index.
        block_size: documents encoded at once, ≥ 1; changes memory and speed only.
        replace: whether an index that is there may be replaced. It stands until the new one is
            complete, so the disk must hold both.
        total: number of documents, if known, for the progress bar.

    Returns:
        The manifest of the new index.

    Raises:
        UsageError: if the folder holds an index and `replace` is not set, or holds other files.
        IndexMissingError: if it holds a damaged index and `replace` is not set.
        DataError: if there are no documents or an id repeats.
        DupMAEError: if the disk is full or cannot be written, or another build is writing there.
    """
    folder = Path(folder)
    if block_size < 1:
        raise UsageError(f"block_size must be at least 1, found {block_size}")
    _refuse_other_files(folder)
    try:
        with writer_lock(folder):
            generation = _next_generation(folder, replace)
            segment = folder / SEGMENTS_NAME / segment_name(generation)
            try:
                manifest = _write_segment(
                    _blocks(documents, block_size), encoder, segment, generation, total
                )
                write_manifest(folder, manifest)
            except BaseException:  # ctrl-C too
                _discard(folder, generation)
                raise
            _remove_segments(folder, keep=generation)
            return manifest
    except OSError as error:
        raise DupMAEError(
            f"index {folder} could not be built: {error}; an index that was there is unchanged"
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


def _next_generation(folder: Path, replace: bool) -> int:
    """Return the number of the new segment; remove what killed builds have left.

    Raises:
        UsageError: if an index stands there and must not be replaced.
        IndexMissingError: if a damaged one does.
    """
    try:
        live = read_manifest(folder)
    except IndexMissingError:
        if not (folder / MANIFEST_NAME).exists():
            _remove_segments(folder, keep=None)
        elif not replace:
            raise
        # With a damaged manifest any segment may be the one worth saving until the build is done.
    else:
        if not replace:
            raise UsageError(
                f"{folder} holds an index of {live.documents} documents already; "
                "use --replace to build it anew, or name another folder"
            )
        _remove_segments(folder, keep=live.generation)
    return max(_generations(folder), default=0) + 1


def _write_segment(
    blocks: Iterator[list[Document]],
    encoder: TextEncoder,
    segment: Path,
    generation: int,
    total: int | None,
) -> Manifest:
    """Write all files of a segment, safe on the disk, and return the manifest to publish."""
    segment.mkdir(parents=True)
    digest = CorpusHash()
    with (
        tqdm(total=total, desc="index", unit="doc", disable=None) as progress,
        DocumentWriter(segment / DOCUMENTS_NAME) as texts,
        ForwardWriter(
            segment / FORWARD_NAME, encoder.dense_dim, encoder.vocabulary_size
        ) as vectors,
    ):
        for block in blocks:
            texts.add(block)  # first, since a repeated id is found before the block is encoded
            vectors.add(encoder.encode_documents([document.content for document in block]))
            for document in block:
                digest.add(document)
            progress.update(len(block))
    if len(texts) == 0:
        raise DataError("there are no documents to index")
    forward = ForwardStore.open(segment / FORWARD_NAME)
    TantivyImpactIndex.build(segment / SPARSE_NAME, forward.sparse, encoder.vocabulary_size)
    return Manifest(
        generation=generation,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        encoder_name=encoder.name,
        encoder_seal=encoder.seal,
        documents=len(texts),
        corpus_hash=digest.hexdigest(),
        dense_dim=encoder.dense_dim,
        vocabulary_size=encoder.vocabulary_size,
        files=describe_files(segment),
    )


def _blocks(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while block := list(islice(iterator, size)):
        yield block


def _discard(folder: Path, generation: int) -> None:
    """Remove a segment unless the manifest had been published before the build ended."""
    try:
        if read_manifest(folder).generation == generation:
            return
    except IndexMissingError:
        pass
    segments = folder / SEGMENTS_NAME
    shutil.rmtree(segments / segment_name(generation), ignore_errors=True)
    if not any(segments.iterdir()):
        segments.rmdir()


def _remove_segments(folder: Path, keep: int | None) -> None:
    """Remove all segments but one. What a reader still holds open, on Windows, stays for now."""
    for generation in _generations(folder):
        if generation != keep:
            shutil.rmtree(folder / SEGMENTS_NAME / segment_name(generation), ignore_errors=True)


def _generations(folder: Path) -> list[int]:
    """Return the generations of which a segment, whole or not, is there."""
    names = [path.name for path in (folder / SEGMENTS_NAME).glob("*")]
    numbers = [int(name) for name in names if name.isascii() and name.isdigit()]
    return [number for number in numbers if segment_name(number) in names]
