"""Dense candidates by a graph, for answers without proof: near documents, not surely the nearest.

In a hierarchical navigable small world each document is linked to some that are near it. A search
walks from one to those nearer to the query and reads a few hundred vectors, however many documents
there are; what no walk passes is not found. Vectors are kept once more here, a byte a number, so
that a walk reads little.

A folder holds `graph.faiss`, an `IndexHNSWSQ` as Faiss writes it: 8 bits a number, inner product,
32 links a document. It depends on the order in which threads link documents, so of two graphs of
the same vectors neither need be the other's equal.

Source: Malkov and Yashunin 2020 (HNSW, IEEE TPAMI 42:4).
"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np

from dupmae.errors import IndexMissingError
from dupmae.files import replacing
from dupmae.indexes.npy import release_pages
from dupmae.types import Bool, Float32, Int64

GRAPH_NAME = "graph.faiss"

LINKS = 32
"""Of a document on the lowest level, twice that. With 16 the list of 64 lacks three times as many
documents of SciFact."""
BREADTH = 2
"""A walk keeps this many times the documents that are asked for; with 1 the list of 64 lacks three
times as many."""

_SAMPLE = 16_384
"""Documents, from all over, that the range of each number is taken from."""
_BLOCK = 4096
"""Documents linked at a time."""


class NearGraph:
    """About the best documents by ⟨q, d⟩; any number of threads may search at once."""

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @classmethod
    def build(cls, folder: Path, dense: Float32) -> None:
        """Link vectors (N, dim), which may be memory-mapped, in memory of about what is written.

        Raises:
            OSError: if the disk is full or fails.
        """
        bits = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexHNSWSQ(
            dense.shape[1],
            bits,  # type: ignore[arg-type]  # the stubs expect a quantizer, Faiss its name
            LINKS,
            faiss.METRIC_INNER_PRODUCT,
        )
        rows = np.unique(np.linspace(0, len(dense) - 1, min(_SAMPLE, len(dense))).astype(np.int64))
        index.train(dense[rows])
        for start in range(0, len(dense), _BLOCK):
            index.add(np.ascontiguousarray(dense[start : start + _BLOCK]))
            release_pages(dense)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / GRAPH_NAME) as file:
            writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
            faiss.write_index(index, writer)

    @classmethod
    def open(cls, folder: Path, dense: Float32) -> NearGraph:
        """Map the graph of vectors (N, dim).

        Raises:
            IndexMissingError: if the file is missing or damaged, or of other vectors.
        """
        path = folder / GRAPH_NAME
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:  # Faiss raises nothing else, and names its own source
            raise IndexMissingError(
                f"{path} is missing, or no graph of Faiss; build the index again"
            ) from error
        if (index.ntotal, index.d) != dense.shape:
            raise IndexMissingError(
                f"{path}: expected a graph of {dense.shape} vectors, found "
                f"{(index.ntotal, index.d)}; build the index again"
            )
        return cls(index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def vectors(self, ordinals: Int64) -> Float32:
        """Return the vectors (m, dim) of documents as they are kept, rounded."""
        kept: Float32 = self._index.reconstruct_batch(ordinals)
        return kept

    def search(self, queries: Float32, k: int, allowed: Bool | None = None) -> list[Int64]:
        """Return at most k documents for each query (m, dim), most of them among the best k.

        Args:
            queries: finite.
            k: how many, ≥ 1.
            allowed: (N,), which documents count; all if not given. The fewer, the longer it takes.
        """
        breadth, bits = BREADTH * k, None
        if allowed is not None:
            breadth = breadth * len(self) // max(1, int(np.count_nonzero(allowed)))
            packed = np.packbits(allowed, bitorder="little")
            bits = faiss.IDSelectorBitmap(len(packed), faiss.swig_ptr(packed))
        parameters = faiss.SearchParametersHNSW(  # type: ignore[attr-defined]
            efSearch=min(breadth, len(self)), sel=bits
        )
        _, found = self._index.search(np.ascontiguousarray(queries), k, params=parameters)
        return [row[row >= 0] for row in found]  # −1 stands where there is no more
