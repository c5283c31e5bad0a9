"""Exporting an index: all vectors in one file, all documents in a JSONL file beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.engine.manifest import Manifest, read_manifest, read_state
from dupmae.engine.opened import Segment, open_segments
from dupmae.errors import DupMAEError, UsageError
from dupmae.files import replacing
from dupmae.indexes.tensors import Tensor, check_name, write_tensors
from dupmae.types import Document, Encoded

_DOCUMENTS = 1024
"""Documents written at a time."""


def export_index(folder: Path | str, path: Path | str) -> int:
    """Write what `VectorFiles` reads, and the corpus: an index of both equals the one exported.

    Args:
        folder: of the index.
        path: of the vectors, .safetensors or .npz; the documents go to the same name in .jsonl.

    Returns:
        The number of documents.

    Raises:
        UsageError: if a file is there already, the name ends otherwise, or the index holds
            passages.
        IndexMissingError: if there is no index, or it is damaged.
        DupMAEError: if the disk is full or cannot be written.
    """
    folder, path = Path(folder), Path(path)
    corpus = path.with_suffix(".jsonl")
    check_name(path)
    for file in (path, corpus):
        if file.exists():
            raise UsageError(f"{file} is there already; remove it, or export to another name")
    if read_manifest(folder).chunk is not None:
        raise UsageError(
            f"index {folder} holds passages, and an export has one vector a document; index the "
            "documents whole to export them"
        )
    manifest, segments = read_state(
        folder, lambda state: (state, list(open_segments(folder, state, {}).values()))
    )
    try:
        _write_corpus(segments, corpus)
        write_tensors(path, _tensors(manifest, segments), _settings(manifest))
    except BaseException as error:  # ctrl-C too
        corpus.unlink(missing_ok=True)  # else it would stand in the way of the next export
        if isinstance(error, OSError):
            raise DupMAEError(f"{path} could not be written: {error}") from error
        raise
    finally:
        for segment in segments:
            segment.documents.close()
    return manifest.documents


def _settings(manifest: Manifest) -> dict[str, str]:
    settings = {
        "encoder": manifest.encoder_name,
        "seal": manifest.encoder_seal,
        "vocabulary_size": str(manifest.vocabulary_size),
    }
    if manifest.borrow is not None:
        settings["borrow"] = json.dumps(asdict(manifest.borrow))
    return settings


def _write_corpus(segments: Sequence[Segment], corpus: Path) -> None:
    with replacing(corpus) as file:
        for segment in segments:
            for block in segment.texts(_DOCUMENTS):
                file.writelines(map(_line, block))


def _tensors(manifest: Manifest, segments: Sequence[Segment]) -> list[Tensor]:
    """Return what is to be written of all live documents, in their order."""
    lengths = [segment.forward.count_own(segment.live_ordinals()) for segment in segments]
    indptr = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
    shape, nonzeros = (manifest.documents, manifest.dense_dim), (int(indptr[-1]),)
    return [
        Tensor("indptr", indptr.dtype, indptr.shape, [indptr]),
        Tensor("dense", np.dtype(np.float32), shape, _rows(segments, lambda e: e.dense)),
        Tensor("terms", np.dtype(np.int32), nonzeros, _rows(segments, lambda e: e.sparse.terms)),
        Tensor(
            "weights", np.dtype(np.float32), nonzeros, _rows(segments, lambda e: e.sparse.weights)
        ),
    ]


def _rows(
    segments: Sequence[Segment], part: Callable[[Encoded], NDArray[Any]]
) -> Iterator[NDArray[Any]]:
    for segment in segments:
        for encoded in segment.vectors(_DOCUMENTS):
            yield part(encoded)


def _line(document: Document) -> bytes:
    record: dict[str, Any] = {"_id": document.doc_id, "text": document.text}
    if document.title:
        record["title"] = document.title
    if document.metadata:
        record["metadata"] = dict(document.metadata)
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"
