"""The documents of an index as one row of ordinals, whatever segments they lie in.

A view numbers live documents from 0 without gaps, in the order of segments and, there, of rows: the
ordinals of an index that was built of just these documents. Fusion, feedback and explanations see
views only, and so neither segments nor deletes. The stores below still hold what is deleted and are
asked with a mask (`allowed` in `dupmae.indexes.base`).

Why lists stay true when they are joined: of each segment the best n are asked for, and of all of
these the best n kept. What is left out scores, as each store promises, at most the last of its own
list, and so at most the last of the joined one: where a segment leaves documents out its list has n
entries, none of them above the joined list's last unless it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TypeVar

import numpy as np

from dupmae.engine.fusion import Stores
from dupmae.engine.opened import Segment
from dupmae.errors import DataError
from dupmae.indexes.documents import DocumentStore
from dupmae.indexes.topk import top_k
from dupmae.types import (
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


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A segment's place in a view, where its live documents have the ordinals from `start` on.

    `rows` (n,) are their ordinals in the segment, rising; None if these are 0, 1, …
    """

    segment: Segment
    start: int
    rows: Int64 | None

    def __len__(self) -> int:
        return self.segment.record.live

    def local(self, ordinals: Int64) -> Int64:
        """Return ordinals in the segment of ordinals in the view."""
        places = ordinals - self.start
        return places if self.rows is None else self.rows[places]

    def ordinals(self, local: Int64) -> Int64:
        """Return ordinals in the view of ordinals in the segment that are live."""
        places = local if self.rows is None else np.searchsorted(self.rows, local)
        return places + self.start

    def ordinal(self, local: int) -> int:
        """Return the ordinal in the view of one document."""
        return int(self.ordinals(np.array([local]))[0])


class View:
    """The vectors of all live documents: what the forward store is to a single segment."""

    def __init__(self, segments: Sequence[Segment], dim: int, vocabulary_size: int) -> None:
        self._starts = list(accumulate((segment.record.live for segment in segments), initial=0))
        self.parts = [
            _Part(segment, start, None if segment.live is None else segment.live_ordinals())
            for segment, start in zip(segments, self._starts[:-1], strict=True)
        ]
        self.dim = dim
        self._vocabulary_size = vocabulary_size
        self.stores = Stores(self, _Dense(self.parts, dim), _Sparse(self.parts))
        self.documents = ViewDocuments(self)

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def corpus(self) -> CorpusStatistics:
        """How many live documents there are, and in how many of them each term is."""
        frequency = np.zeros(self._vocabulary_size, dtype=np.int64)
        for part in self.parts:
            forward, live = part.segment.forward, part.segment.live
            frequency += forward.frequency
            if live is not None:
                frequency -= forward.count_terms(np.flatnonzero(~live))
        return CorpusStatistics(len(self), frequency)

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


class ViewDocuments:
    """The live documents by ordinal in the view, and by id."""

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

    def ordinal(self, doc_id: str) -> int:
        """Return the ordinal of a document.

        Raises:
            DataError: if no document has that id.
        """
        for part in self._view.parts:
            found = part.segment.find([doc_id])
            if found:
                return part.ordinal(found[doc_id])
        raise DataError(f"no document of the index has the id {doc_id!r}")

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
        lists = [part.segment.dense.search(queries, k, part.segment.live) for part in self._parts]
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
        lists = [part.segment.sparse.search(queries, k, part.segment.live) for part in self._parts]
        return _joined(self._parts, lists, k)


def _joined(parts: Sequence[_Part], lists: Sequence[Sequence[Ranking]], k: int) -> list[Ranking]:
    """Join, for each query, the rankings of all parts."""
    joined = []
    for rankings in zip(*lists, strict=True):
        pairs = list(zip(parts, rankings, strict=True))
        ordinals = np.concatenate([part.ordinals(ranking.ordinals) for part, ranking in pairs])
        scores = np.concatenate([ranking.scores for ranking in rankings])
        joined.append(top_k(scores, k, ordinals))
    return joined
