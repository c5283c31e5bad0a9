"""Sparse candidates by Tantivy, used as an impact index.

tantivy-py offers no scorer of one's own, but a constant-score query for a token adds a constant.
So a document's text is the numbers of its impact cells (see `impacts.py`), one token a non-zero,
and a query is one constant-score clause for each occupied cell of its terms. The sums are whole
numbers below 2^24, exact in Tantivy's float32.

A folder holds Tantivy's files and `tops.npy` (V, levels) float32, what each cell counts as.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tantivy
from tqdm import tqdm

from dupmae.errors import IndexMissingError
from dupmae.indexes.impacts import ImpactCells, QueryImpacts
from dupmae.indexes.npy import closing_npy, open_npy, release_pages
from dupmae.indexes.topk import top_k
from dupmae.types import Bool, Float32, Float64, Int32, Int64, Ranking, SparseVectors

DEFAULT_LEVELS = 31
"""Twice the levels halve what bounds lose and cost about half as much time again a query."""

_HEAP_BYTES = 128_000_000
"""What Tantivy may hold in memory before it writes a part of the index out."""
_BLOCK = 1024
"""Documents made into cells at a time."""
_GROWTH = 4
"""How many times deeper a list is read that holds too few allowed documents."""


class TantivyImpactIndex:
    """Documents that share a term with the query, by an upper bound of ⟨q, d⟩.

    How much a bound may exceed the score is said in `impacts.py`. Searching releases the GIL, and
    any number of threads may search at once.
    """

    def __init__(self, index: tantivy.Index, tops: Float32) -> None:
        self._schema = index.schema
        self._searcher = index.searcher()
        self._tops = tops

    @classmethod
    def build(
        cls,
        folder: Path,
        vectors: SparseVectors,
        vocabulary_size: int,
        *,
        levels: int = DEFAULT_LEVELS,
    ) -> None:
        """Index vectors in a folder, in memory bounded by the vocabulary and Tantivy's heap.

        Args:
            folder: made if missing.
            vectors: N documents, may be memory-mapped; read three times.
            vocabulary_size: above all terms.
            levels: cells a term, ≥ 1.

        Raises:
            FileExistsError: if the folder holds an index, which Tantivy would add to.
            OSError: if the disk is full or fails.
        """
        if (folder / "meta.json").exists():
            raise FileExistsError(f"{folder} holds an index already; remove it first")
        folder.mkdir(parents=True, exist_ok=True)
        cells = ImpactCells.fit(vectors, vocabulary_size, levels)
        with closing_npy(folder / "tops.npy", np.float32, (levels,)) as file:
            file.append(cells.tops(vectors))
        try:
            _write(folder, vectors, cells)
        except ValueError as error:  # how tantivy-py reports a full disk, and all else
            raise OSError(f"cannot write {folder}, maybe a full disk: {error}") from error

    @classmethod
    def open(cls, folder: Path) -> TantivyImpactIndex:
        """Open for searching; writes nothing in the folder, so it may be read-only.

        Raises:
            IndexMissingError: if a file is missing or damaged.
        """
        tops = open_npy(folder / "tops.npy", np.float32, ndim=2)
        if not (folder / "meta.json").is_file():
            raise IndexMissingError(f"{folder} holds no Tantivy index; build the index again")
        try:
            with _linked(folder) as links:
                index = tantivy.Index.open(str(links))
                index.config_reader("manual")  # else a thread may open all files once more
                return cls(index, tops)
        except ValueError as error:
            raise IndexMissingError(f"{folder} is damaged ({error}); build it again") from error

    def __len__(self) -> int:
        return int(self._searcher.num_docs)

    def search(self, queries: SparseVectors, k: int, allowed: Bool | None = None) -> list[Ranking]:
        """Return at most k documents a query, best first; scores are upper bounds of ⟨q, d⟩.

        Tantivy has no cheap way to leave documents out, so a list is read deeper until it holds
        enough that are allowed.
        """
        k = min(k, len(self))
        return [self._search(terms, weights, k, allowed) for terms, weights in queries]

    def _search(self, terms: Int32, weights: Float32, k: int, allowed: Bool | None) -> Ranking:
        query = QueryImpacts.of(terms, weights, self._tops)
        if k == 0 or len(query.cells) == 0:
            return top_k(np.zeros(0), 0)
        clauses, depth = self._clauses(query), k
        while True:
            scores, ordinals = self._best(clauses, depth)
            ends = len(ordinals) < depth or depth == len(self)
            if allowed is not None:
                kept = allowed[ordinals]
                scores, ordinals = scores[kept], ordinals[kept]
            if ends or len(ordinals) >= k:
                return top_k(scores * query.unit, k, ordinals)
            depth = min(depth * _GROWTH, len(self))

    def _best(self, clauses: tantivy.Query, depth: int) -> tuple[Float64, Int64]:
        """Return sums of impacts and ordinals of the best documents, each (n,), n ≤ depth."""
        hits = self._searcher.search(clauses, depth, count=False).hits
        # A fast field, unlike a stored one, costs next to nothing to read.
        ordinals = self._searcher.fast_field_values("ordinal", [address for _, address in hits])
        scores = np.array([score for score, _ in hits], dtype=np.float64)
        return scores, np.array(ordinals, dtype=np.int64)

    def _clauses(self, query: QueryImpacts) -> tantivy.Query:
        term_query, constant = tantivy.Query.term_query, tantivy.Query.const_score_query
        schema, should = self._schema, tantivy.Occur.Should
        return tantivy.Query.boolean_query(
            [
                (should, constant(term_query(schema, "cells", str(cell), "basic"), impact))
                for cell, impact in zip(query.cells.tolist(), query.impacts.tolist(), strict=True)
            ]
        )


def _write(folder: Path, vectors: SparseVectors, cells: ImpactCells) -> None:
    schema = (
        tantivy.SchemaBuilder()
        .add_unsigned_field("ordinal", fast=True)
        .add_text_field("cells", tokenizer_name="whitespace", index_option="basic")
        .build()
    )
    # One thread keeps documents in order and is kept busy by this one, which makes the tokens.
    writer = tantivy.Index(schema, str(folder)).writer(_HEAP_BYTES, num_threads=1)
    with tqdm(total=len(vectors), desc="sparse index", unit="doc", disable=None) as progress:
        for start in range(0, len(vectors), _BLOCK):
            block = vectors.rows(start, min(start + _BLOCK, len(vectors)))
            numbers = cells.number(block.terms, block.weights).tolist()
            for row in range(len(block)):
                tokens = numbers[block.indptr[row] : block.indptr[row + 1]]
                document = tantivy.Document()
                document.add_unsigned("ordinal", start + row)
                document.add_text("cells", " ".join(map(str, tokens)))
                writer.add_document(document)
            release_pages(vectors.terms)
            release_pages(vectors.weights)
            progress.update(len(block))
    writer.commit()
    writer.wait_merging_threads()
    for lock in folder.glob(".tantivy-*.lock"):
        lock.unlink()


@contextmanager
def _linked(folder: Path) -> Iterator[Path]:
    """Give a temporary folder of links to the files of an index, for as long as it is opened.

    Tantivy takes a lock file in the folder of an index that it opens, even only to read, which
    fails where nothing may be written. Links to the files, with the lock beside them, need no
    right but to read. Once opened, all files are mapped into memory and the links not needed.
    """
    with tempfile.TemporaryDirectory(prefix="dupmae-", ignore_cleanup_errors=True) as temporary:
        links = Path(temporary)
        try:
            for path in folder.resolve().iterdir():
                (links / path.name).symlink_to(path)
        except OSError:  # Windows lets few users make links
            links = folder
        yield links
