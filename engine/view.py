"""The documents of an index as one row of ordinals, whatever segments they lie in.

A view numbers live documents from 0 without gaps, in the order of segments and, there, of rows: the
ordinals of an index that was built of just these documents. Fusion, feedback and explanations see
views only, and so neither segments nor deletes. The stores below still hold what is deleted and are
asked with a mask (`allowed` in `dupmae.indexes.base`).

A view may be restricted to the documents that match a filter. It is then one of an index that holds
no others, but for `corpus`, which stays that of all live documents: so a query means the same, and
a document scores the same, whatever the filter.

Why lists stay true when they are joined: of each segment the best n are asked for, and of all of
these the best n kept. What is left out scores, as each store promises, at most the last of its own
list, and so at most the last of the joined one: where a segment leaves documents out its list has n
entries, none of them above the joined list's last unless it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from typing import TypeVar

import numpy as np

from dupmae.engine.filters import Filter, matching
from dupmae.engine.fusion import Stores
from dupmae.engine.opened import Segment
from dupmae.engine.scan import Scan, ScannedPart
from dupmae.errors import DataError
from dupmae.indexes.documents import DocumentStore, Labels
from dupmae.indexes.topk import top_k
from dupmae.types import (
    Bool,
    CorpusStatistics,
    Document,
    Float32,
    Float64,
    Int32,
    Int64,
    Ranking,
    SparseVectors,
)

Item = TypeVar("Item")


_RESTRICTED = 4
"""Views by filter that a view keeps: the mask and the rows of each take 9 bytes a document."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A segment's place in a view, where its documents have the ordinals from `start` on.

    `rows` (n,) are their ordinals in the segment, rising, and `mask` (N,) says the same; both None
    if all documents of the segment are in the view.
    """

    segment: Segment
    start: int
    rows: Int64 | None
    mask: Bool | None

    def __len__(self) -> int:
        return len(self.segment) if self.rows is None else len(self.rows)

    def all_rows(self) -> Int64:
        """Return the ordinals in the segment of all documents of the view that it holds."""
        return np.arange(len(self)) if self.rows is None else self.rows

    def local(self, ordinals: Int64) -> Int64:
        """Return ordinals in the segment of ordinals in the view."""
        places = ordinals - self.start
        return places if self.rows is None else self.rows[places]

    def ordinals(self, local: Int64) -> Int64:
        """Return ordinals in the view of ordinals in the segment that the view has."""
        places = local if self.rows is None else np.searchsorted(self.rows, local)
        return places + self.start

    def ordinal(self, local: int) -> int:
        """Return the ordinal in the view of one document."""
        return int(self.ordinals(np.array([local]))[0])


class View:
    """The vectors of documents: what the forward store is to a single segment."""

    def __init__(
        self,
        segments: Sequence[tuple[Segment, Int64 | None]],
        dim: int,
        statistics: Callable[[], CorpusStatistics],
    ) -> None:
        """See documents of some segments, of each those with ordinals (n,), rising; None: all."""
        sizes = (len(segment) if rows is None else len(rows) for segment, rows in segments)
        self._starts = list(accumulate(sizes, initial=0))
        self.parts = [
            _Part(segment, start, rows, None if rows is None else _mask(rows, len(segment)))
            for (segment, rows), start in zip(segments, self._starts[:-1], strict=True)
        ]
        self.dim = dim
        self._statistics = statistics
        self.stores = Stores(self, _Dense(self.parts, dim), _Sparse(self.parts), _scan(self.parts))
        self.documents = ViewDocuments(self)
        self._restricted = lru_cache(_RESTRICTED)(self._restrict)

    @classmethod
    def of_live(cls, segments: Sequence[Segment], dim: int, vocabulary_size: int) -> View:
        """See all live documents of segments."""
        return cls(
            [(s, None if s.live is None else s.live_ordinals()) for s in segments],
            dim,
            partial(_statistics, segments, vocabulary_size),
        )

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def corpus(self) -> CorpusStatistics:
        """How many live documents there are, and in how many of them each term is."""
        return self._statistics()

    def restricted(self, where: Filter) -> View:
        """See only the documents that match a filter; reads all labels, unless it just did."""
        return self._restricted(where)

    def score(
        self, dense_query: Float32, query_terms: Int32, query_weights: Float32, ordinals: Int64
    ) -> tuple[Float64, Float64]:
        """Return exact dense and sparse scores, as `ForwardStore.score`."""
        dense, sparse = np.empty(len(ordinals)), np.empty(len(ordinals))
        for part, places in self.split(ordinals):
            local = part.local(ordinals[places])
            dense[places], sparse[places] = part.segment.forward.score(
                dense_query, query_terms, query_weights, local
            )
        return dense, sparse

    def dense_rows(self, ordinals: Int64) -> Float32:
        """Return dense vectors, (m, dim)."""
        rows = np.empty((len(ordinals), self.dim), dtype=np.float32)
        for part, places in self.split(ordinals):
            rows[places] = part.segment.forward.dense[part.local(ordinals[places])]
        return rows

    def sparse_row(self, ordinal: int) -> tuple[Int32, Float32]:
        """Return terms (nnz,) and weights (nnz,) of one document."""
        ((part, _),) = self.split(np.array([ordinal]))
        (local,) = part.local(np.array([ordinal])).tolist()
        return part.segment.forward.sparse.row(local)

    def split(self, ordinals: Int64) -> Iterator[tuple[_Part, Int64]]:
        """Yield each part with the places in `ordinals` of what lies in it.

        Raises:
            IndexError: if there is no such ordinal.
        """
        outside = ordinals[(ordinals < 0) | (ordinals >= len(self))]
        if len(outside):
            raise IndexError(f"no document has the ordinal {outside[0]} among {len(self)}")
        owners = np.searchsorted(self._starts, ordinals, side="right") - 1
        for owner in np.unique(owners).tolist():
            yield self.parts[owner], np.flatnonzero(owners == owner)

    def _restrict(self, where: Filter) -> View:
        found = [
            (part.segment, matching(where, part.segment.documents, part.all_rows()))
            for part in self.parts
        ]
        kept = [(segment, rows) for segment, rows in found if len(rows)]
        return View(kept, self.dim, lambda: self.corpus)


class ViewDocuments:
    """The documents of a view by ordinal, and by id."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __len__(self) -> int:
        return len(self._view)

    def get(self, ordinals: Sequence[int] | Int64) -> list[Document]:
        """Return documents in the order asked for; ordinals may repeat.

        Raises:
            IndexError: if there is no such ordinal.
        """
        return self._read(ordinals, DocumentStore.get)

    def ids(self, ordinals: Sequence[int] | Int64) -> list[str]:
        """Return document ids in the order asked for; ordinals may repeat.

        Raises:
            IndexError: if there is no such ordinal.
        """
        return self._read(ordinals, DocumentStore.ids)

    def find(self, doc_id: str) -> int | None:
        """Return the ordinal of a document; None if the view has none of that id."""
        for part in self._view.parts:
            found = part.segment.find([doc_id])
            if found and (part.mask is None or part.mask[found[doc_id]]):
                return part.ordinal(found[doc_id])
        return None

    def ordinal(self, doc_id: str) -> int:
        """Return the ordinal of a document.

        Raises:
            DataError: if no document has that id.
        """
        ordinal = self.find(doc_id)
        if ordinal is None:
            raise DataError(f"no document of the index has the id {doc_id!r}")
        return ordinal

    def labels(self) -> Iterator[Labels]:
        """Yield all documents in order without their texts."""
        for part in self._view.parts:
            yield from part.segment.documents.labels(part.all_rows())

    def _read(
        self,
        ordinals: Sequence[int] | Int64,
        read: Callable[[DocumentStore, Int64], list[Item]],
    ) -> list[Item]:
        asked = np.asarray(ordinals, dtype=np.int64)
        found: dict[int, Item] = {}
        for part, places in self._view.split(asked):
            items = read(part.segment.documents, part.local(asked[places]))
            found.update(zip(places.tolist(), items, strict=True))
        return [found[place] for place in range(len(asked))]


class _Dense:
    """The dense candidate stores of all parts as one."""

    def __init__(self, parts: Sequence[_Part], dim: int) -> None:
        self._parts = parts
        self.dim = dim

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def search(self, queries: Float32, k: int) -> list[Ranking]:
        lists = [part.segment.dense.search(queries, k, part.mask) for part in self._parts]
        return _joined(self._parts, lists, k)

    def error_bound(self, query: Float32) -> float:
        return max(part.segment.dense.error_bound(query) for part in self._parts)


class _Sparse:
    """The sparse candidate stores of all parts as one."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def search(self, queries: SparseVectors, k: int) -> list[Ranking]:
        lists = [part.segment.sparse.search(queries, k, part.mask) for part in self._parts]
        return _joined(self._parts, lists, k)


def _scan(parts: Sequence[_Part]) -> Callable[..., Scan] | None:
    """Return what begins a scan of some segments; None if one of them has no outline."""
    scanned = [
        ScannedPart(outline, part.segment.sparse, part.mask, part.ordinals)
        for part in parts
        if (outline := part.segment.outline) is not None
    ]
    return partial(Scan, scanned) if len(scanned) == len(parts) else None


def _mask(rows: Int64, documents: int) -> Bool:
    mask = np.zeros(documents, dtype=np.bool_)
    mask[rows] = True
    return mask


def _statistics(segments: Sequence[Segment], vocabulary_size: int) -> CorpusStatistics:
    """Count the live documents of segments, and in how many of them each term is."""
    frequency = np.zeros(vocabulary_size, dtype=np.int64)
    for segment in segments:
        frequency += segment.forward.frequency
        if segment.live is not None:
            frequency -= segment.forward.count_terms(np.flatnonzero(~segment.live))
    return CorpusStatistics(sum(segment.record.live for segment in segments), frequency)


def _joined(parts: Sequence[_Part], lists: Sequence[Sequence[Ranking]], k: int) -> list[Ranking]:
    """Join, for each query, the rankings of all parts."""
    joined = []
    for rankings in zip(*lists, strict=True):
        pairs = list(zip(parts, rankings, strict=True))
        ordinals = np.concatenate([part.ordinals(ranking.ordinals) for part, ranking in pairs])
        scores = np.concatenate([ranking.scores for ranking in rankings])
        joined.append(top_k(scores, k, ordinals))
    return joined
