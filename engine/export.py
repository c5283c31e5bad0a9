"""Exporting an index: all vectors in one file, all documents in a JSONL file beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dupmae.engine.manifest import DOCUMENTS_NAME, FORWARD_NAME, read_manifest, segment_folder
from dupmae.errors import DupMAEError, UsageError
from dupmae.files import replacing
from dupmae.indexes.documents import DocumentStore
from dupmae.indexes.forward import ForwardStore
from dupmae.indexes.npy import release_pages
from dupmae.indexes.tensors import Tensor, check_name, write_tensors
from dupmae.types import Document

_DOCUMENTS = 1024
"""Documents written at a time."""
_BYTES = 1 << 22
"""Of an array, written at a time."""


def export_index(folder: Path | str, path: Path | str) -> int:
    """Write what `VectorFiles` reads, and the corpus: an index of both equals the one exported.

    Args:
        folder: of the index.
        path: of the vectors, .safetensors or .npz; the documents go to the same name in .jsonl.

    Returns:
        The number of documents.

    Raises:
        UsageError: if a file is there already, or the name ends otherwise.
        IndexMissingError: if there is no index, or it is damaged.
        DupMAEError: if the disk is full or cannot be written.
    """
    folder, path = Path(folder), Path(path)
    corpus = path.with_suffix(".jsonl")
    check_name(path)
    for file in (path, corpus):
        if file.exists():
            raise UsageError(f"{file} is there already; remove it, or export to another name")
    manifest = read_manifest(folder)
    segment = segment_folder(folder, manifest)
    store = ForwardStore.open(segment / FORWARD_NAME)
    tensors = [
        _tensor("indptr", store.sparse.indptr),
        _tensor("dense", store.dense),
        _tensor("terms", store.sparse.terms),
        _tensor("weights", store.sparse.weights),
    ]
    settings = {
        "encoder": manifest.encoder_name,
        "seal": manifest.encoder_seal,
        "vocabulary_size": str(manifest.vocabulary_size),
    }
    try:
        _write_corpus(segment / DOCUMENTS_NAME, corpus)
        write_tensors(path, tensors, settings)
    except BaseException as error:  # ctrl-C too
        corpus.unlink(missing_ok=True)  # else it would stand in the way of the next export
        if isinstance(error, OSError):
            raise DupMAEError(f"{path} could not be written: {error}") from error
        raise
    return manifest.documents


def _write_corpus(documents: Path, corpus: Path) -> None:
    store = DocumentStore.open(documents)
    try:
        with replacing(corpus) as file:
            for start in range(0, len(store), _DOCUMENTS):
                block = store.get(range(start, min(start + _DOCUMENTS, len(store))))
                file.writelines(map(_line, block))
    finally:
        store.close()


def _line(document: Document) -> bytes:
    record: dict[str, Any] = {"_id": document.doc_id, "text": document.text}
    if document.title:
        record["title"] = document.title
    if document.metadata:
        record["metadata"] = dict(document.metadata)
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _tensor(name: str, array: NDArray[Any]) -> Tensor:
    return Tensor(name, array.dtype, array.shape, _blocks(array))


def _blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    rows = max(1, _BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]
        release_pages(array)
