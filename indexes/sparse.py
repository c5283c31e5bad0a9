"""Which sparse stores an index may have; a segment holds one of them, in a folder of its name."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from dupmae.errors import IndexMissingError, UsageError
from dupmae.indexes.base import SparseIndex
from dupmae.indexes.inverted import InvertedIndex
from dupmae.indexes.jvm import java_class
from dupmae.indexes.lucene_store import LuceneImpactIndex
from dupmae.indexes.tantivy_store import TantivyImpactIndex
from dupmae.types import SparseVectors

SPARSE_STORES: Mapping[str, type[InvertedIndex | TantivyImpactIndex | LuceneImpactIndex]] = {
    "inverted": InvertedIndex,
    "tantivy": TantivyImpactIndex,
    "lucene": LuceneImpactIndex,
}
DEFAULT_SPARSE = "inverted"


def check_sparse(name: str) -> None:
    """Make sure, before documents are encoded, that a store can be built.

    Raises:
        UsageError: if there is no store of that name.
        DupMAEError: if what it needs is not installed.
    """
    if name not in SPARSE_STORES:
        raise UsageError(f"the sparse store must be {', '.join(SPARSE_STORES)}, found {name!r}")
    if name == "lucene":
        java_class("org.apache.lucene.util.Version")


def build_sparse(segment: Path, name: str, vectors: SparseVectors, vocabulary_size: int) -> None:
    """Build a segment's store, in place of what a stopped build may have left.

    Raises:
        OSError: if the disk is full or fails.
        DupMAEError: if what it needs is not installed.
    """
    for other in SPARSE_STORES:
        shutil.rmtree(segment / other, ignore_errors=True)
    SPARSE_STORES[name].build(segment / name, vectors, vocabulary_size)


def open_sparse(segment: Path) -> SparseIndex:
    """Open the store that a segment holds.

    Raises:
        IndexMissingError: if it holds none, or a file is missing or damaged.
        DupMAEError: if what it needs is not installed.
    """
    return SPARSE_STORES[sparse_name(segment)].open(segment / sparse_name(segment))


def sparse_name(segment: Path) -> str:
    """Return the name of the store that a segment holds.

    Raises:
        IndexMissingError: if it holds none.
    """
    for name in SPARSE_STORES:
        if (segment / name).is_dir():
            return name
    raise IndexMissingError(
        f"{segment} holds no sparse store ({', '.join(SPARSE_STORES)}); build the index again"
    )
