"""Sparse candidates by Lucene, with the impact scoring of Anserini and pyserini.

A weight is stored as a term's frequency, an impact from 1 to 255: by how many steps, rounded up, it
is above 0, where a step is the 255th part of the largest weight of its term. Lucene stores
frequencies without loss, norms are left out, and Anserini's `ImpactSimilarity` makes a term's score
boost × frequency. Boosts are whole numbers from 1 to 2^24, rounded up, which float32 holds exactly.

Why scores are upper bounds of ⟨q, d⟩: boost × impact, times the unit that boosts count in, is at
least query weight × weight of each term. Lucene rounds each product to float32, and may round each
partial sum of a document; so n products lose at most n + 1 roundings of one part in 2^24 each. The
unit is raised by twice that, and by the little that float64 rounding, here and in the exact score,
could take. Lucene leaves out only what cannot enter the list by the scores that it computes, so
what is not listed has a computed score, and hence a bound, of at most the last one listed.

A folder holds Lucene's files, of one segment in which document numbers are ordinals, and
`steps.npy` (V,) float64.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dupmae.errors import IndexMissingError
from dupmae.indexes.impacts import ImpactCells
from dupmae.indexes.jvm import java_class, java_lock, translated
from dupmae.indexes.lucene import LuceneSearcher, lucene_class, text_field, writing
from dupmae.indexes.npy import closing_npy, open_npy, release_pages
from dupmae.indexes.topk import top_k
from dupmae.types import Bool, Float32, Float64, Int32, Ranking, SparseVectors

LARGEST_IMPACT = 255
LARGEST_BOOST = 2**24
"""Whole numbers up to this are exact in float32."""

_IMPACTS, _ORDINAL = "impacts", "ordinal"
"""Lucene's fields: terms, and numbers by which a search can be restricted."""

_BLOCK = 1024
"""Documents made into text at a time."""


class LuceneImpactIndex:
    """Documents that share a term with the query, by an upper bound of ⟨q, d⟩.

    A bound exceeds the score by less than a step of its term for each shared term (see above),
    times the query's weight, and by about one part in 2^23 for each term of the query. Any number
    of threads may search at once, but they take turns, also with one that builds (`java_lock`).
    """

    def __init__(self, reader: Any, steps: Float64) -> None:
        self._documents = int(reader.maxDoc())
        self._searcher = LuceneSearcher(reader, _similarity())
        self._steps = steps
        self._analyzer = lucene_class("analysis.core.WhitespaceAnalyzer")()
        # Java never unmaps the files of a reader that is only forgotten.
        weakref.finalize(self, _close, reader).atexit = False

    @classmethod
    def build(cls, folder: Path, vectors: SparseVectors, vocabulary_size: int) -> None:
        """Index vectors in a folder, in memory bounded by the vocabulary and Lucene's buffer.

        Args:
            folder: made if missing.
            vectors: N documents, may be memory-mapped; read twice.
            vocabulary_size: above all terms.

        Raises:
            FileExistsError: if the folder holds an index.
            ValueError: if a term is not below `vocabulary_size`.
            OSError: if the disk is full or fails.
            DupMAEError: if Java or pyserini is missing.
        """
        if (folder / "steps.npy").exists():
            raise FileExistsError(f"{folder} holds an index already; remove it first")
        highs = ImpactCells.fit(vectors, vocabulary_size, levels=1).highs
        steps = highs.astype(np.float64) / LARGEST_IMPACT  # of a float32 it may be 0
        with translated(lambda text: OSError(f"cannot write {folder}: {text}")), java_lock:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder, vectors, steps)
        with closing_npy(folder / "steps.npy", np.float64) as file:
            file.append(steps)

    @classmethod
    def open(cls, folder: Path) -> LuceneImpactIndex:
        """Map the files of a folder; takes no lock and writes nothing.

        Raises:
            IndexMissingError: if a file is missing or damaged.
            DupMAEError: if Java or pyserini is missing.
        """
        steps = open_npy(folder / "steps.npy", np.float64, ndim=1)
        with (
            translated(
                lambda text: IndexMissingError(
                    f"{folder} is damaged ({text}); build the index again"
                )
            ),
            java_lock,
        ):
            reader = lucene_class("index.DirectoryReader").open(_directory(folder))
            return cls(reader, steps)

    def __len__(self) -> int:
        return self._documents

    def search(self, queries: SparseVectors, k: int, allowed: Bool | None = None) -> list[Ranking]:
        """Return at most k documents a query, best first; scores are upper bounds of ⟨q, d⟩.

        Args:
            queries: m vectors.
            k: how many, ≥ 1; above N means all.
            allowed: (N,), which documents may be listed; all if not given.
        """
        k = min(k, len(self))
        with java_lock:
            only = None if allowed is None else _Restriction(allowed)
        rankings = []
        for terms, weights in queries:
            with java_lock:
                rankings.append(self._search(terms, weights, k, only))
        return rankings

    def _search(self, terms: Int32, weights: Float32, k: int, only: _Restriction | None) -> Ranking:
        known = self._steps[terms] > 0
        terms, weights = terms[known], weights[known]
        if k == 0 or len(terms) == 0:
            return top_k(np.zeros(0), 0)
        boosts, unit = _boosts(weights.astype(np.float64) * self._steps[terms])
        query = self._query(terms, boosts)
        ordinals, scores = self._searcher.search(query if only is None else only.of(query), k)
        return top_k(scores * unit, k, ordinals)

    def _query(self, terms: Int32, boosts: Float64) -> Any:
        """Return a disjunction; to parse one is ten times as fast as to build it by calls."""
        parser = lucene_class("queryparser.classic.QueryParser")(_IMPACTS, self._analyzer)
        pairs = zip(terms.tolist(), boosts.astype(np.int64).tolist(), strict=True)
        return parser.parse(" ".join(f"{term}^{boost}" for term, boost in pairs))


class _Restriction:
    """Those documents that may be listed, as a clause of a query."""

    def __init__(self, allowed: Bool) -> None:
        """Name the fewer, those that are allowed or those that are not."""
        self._excludes = 2 * np.count_nonzero(allowed) > len(allowed)
        ordinals = np.flatnonzero(allowed != self._excludes).tolist()
        self._set = lucene_class("document.IntPoint").newSetQuery(_ORDINAL, *ordinals)

    def of(self, query: Any) -> Any:
        """Return a query for the same documents, as far as they are allowed, with its scores."""
        occur = lucene_class("search.BooleanClause$Occur")
        builder = lucene_class("search.BooleanQuery$Builder")()
        builder.add(query, occur.MUST)
        builder.add(self._set, occur.MUST_NOT if self._excludes else occur.FILTER)
        return builder.build()


def _close(reader: Any) -> None:
    """Close a reader; its bound method could not be kept, see `java_lock`."""
    with java_lock:
        reader.close()


def _boosts(products: Float64) -> tuple[Float64, float]:
    """Return by what whole number (n,) each term's impacts are multiplied, and the unit.

    `products` (n,), n ≥ 1: query weight × step of each term, above 0.
    """
    unit = float(products.max()) / LARGEST_BOOST
    roundings = len(products) + 1
    return np.ceil(products / unit), unit * (1 + roundings * 2.0**-23)


def _write(folder: Path, vectors: SparseVectors, steps: Float64) -> None:
    impacts_field = text_field(_IMPACTS, norms=False)
    ordinal_field = lucene_class("document.IntPoint")(_ORDINAL, 0)
    document = lucene_class("document.Document")()
    document.add(impacts_field)
    document.add(ordinal_field)
    bar = tqdm(total=len(vectors), desc="sparse index", unit="doc", disable=None)
    with writing(_directory(folder), _impacts_analyzer(), _similarity()) as writer, bar:
        for start in range(0, len(vectors), _BLOCK):
            block = vectors.rows(start, min(start + _BLOCK, len(vectors)))
            for row, text in enumerate(_texts(block, steps)):
                impacts_field.setStringValue(text)
                ordinal_field.setIntValue(start + row)
                writer.addDocument(document)
            release_pages(vectors.terms)
            release_pages(vectors.weights)
            bar.update(len(block))


def _texts(block: SparseVectors, steps: Float64) -> Iterator[str]:
    """Yield a text for each document, in which each term is followed by its impact."""
    impacts = np.ceil(block.weights / steps[block.terms]).clip(1, LARGEST_IMPACT)
    pairs = zip(block.terms.tolist(), impacts.astype(np.int64).tolist(), strict=True)
    tokens = [f"{term}|{impact}" for term, impact in pairs]
    for start, end in pairwise(block.indptr.tolist()):
        yield " ".join(tokens[start:end])


def _impacts_analyzer() -> Any:
    """Return what reads `_texts`."""
    analyzer = lucene_class("analysis.custom.CustomAnalyzer").builder()
    analyzer.withTokenizer("whitespace").addTokenFilter("delimitedTermFrequency")
    return analyzer.build()


def _directory(folder: Path) -> Any:
    """Return Lucene's view of a folder; nobody else writes there, so there is no lock."""
    path = java_class("java.nio.file.Paths").get(str(folder.absolute()))
    return lucene_class("store.FSDirectory").open(
        path, lucene_class("store.NoLockFactory").INSTANCE
    )


def _similarity() -> Any:
    return java_class("io.anserini.search.similarity.ImpactSimilarity")()
