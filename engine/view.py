"""The documents of an index as one row of ordinals, whatever segments they lie in.

A view numbers live documents from 0 without gaps, in the order of segments and, there, of rows: the
ordinals of an index that was built of just these documents. Fusion, feedback and explanations see
views only, and so neither segments nor deletes. The stores below still hold what is deleted and are
asked with a mask (`allowed` in `dupmae.indexes.base`).

Where documents are split into passages, what has an ordinal is a passage: vectors are numbered so,
and `owners` says whose each is. Documents have ordinals of their own, those of `documents`. Where
they are not split the two are the same.

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
from functools import cached_property, lru_cache, partial
from typing import TypeVar

import numpy as np

from dupmae.engine.fast import near_lists
from dupmae.engine.filters import Filter, matching
from dupmae.engine.fusion import Stores
from dupmae.engine.numbers import split_ordinals
from dupmae.engine.opened import Segment
from dupmae.engine.parts import Part
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
    Passage,
    Ranking,
    SparseVectors,
)

Item = TypeVar("Item")

_RESTRICTED = 4
"""Views by filter that a view keeps: the mask and the rows of each take 9 bytes a document, and
of split documents 17 a passage."""


class View:
    """The vectors of documents: what the forward store is to a single segment."""

    def __init__(
        self,
        segments: Sequence[tuple[Segment, Int64 | None]],
        dim: int,
        statistics: Callable[[], CorpusStatistics],
        whole: View | None = None,
    ) -> None:
        """See documents of some segments, of each those with ordinals (n,), rising; None: all.

        `whole` is the view that this one restricts, None if it restricts none.
        """
        self.parts: list[Part] = []
        documents, vectors = 0, 0
        for segment, chosen in segments:
            part = Part.of(segment, chosen, documents, vectors)
            self.parts.append(part)
            documents, vectors = documents + part.documents.size, vectors + part.vectors.size
        self.dim = dim
        self._size = vectors
        self._statistics = statistics
        self._whole = whole
        self.owners = _owners(self.parts)
        lists = _Dense(self.parts, dim), _Sparse(self.parts)
        self.stores = Stores(self, *lists, self.owners, _scan(self.parts), near_lists(self.parts))
        self.documents = ViewDocuments(self.parts, documents)
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
        return self._size

    @property
    def whole(self) -> View:
        """The view of all live documents of the same generation."""
        return self if self._whole is None else self._whole

    @cached_property
    def corpus(self) -> CorpusStatistics:
        """How many live documents there are, and in how many of them each term is.

        Where documents are split into passages it is these that are counted.
        """
        return self._statistics()

    def restricted(self, where: Filter) -> View:
        """See only the documents that match a filter; reads all labels, unless it just did."""
        return self._restricted(where)

    def score(
        self, dense_query: Float32, query_terms: Int32, query_weights: Float32, ordinals: Int64
    ) -> tuple[Float64, Float64]:
        """Return exact dense and sparse scores of vectors, as `ForwardStore.score`."""
        dense, sparse = np.empty(len(ordinals)), np.empty(len(ordinals))
        for part, places in self._split(ordinals):
            local = part.vectors.local(ordinals[places])
            dense[places], sparse[places] = part.segment.forward.score(
                dense_query, query_terms, query_weights, local
            )
        return dense, sparse

    def dense_rows(self, ordinals: Int64) -> Float32:
        """Return dense vectors, (m, dim)."""
        rows = np.empty((len(ordinals), self.dim), dtype=np.float32)
        for part, places in self._split(ordinals):
            rows[places] = part.segment.forward.dense[part.vectors.local(ordinals[places])]
        return rows

    def sparse_row(self, ordinal: int) -> tuple[Int32, Float32]:
        """Return terms (nnz,) and weights (nnz,) of one vector."""
        segment, row = self._place(ordinal)
        return segment.forward.sparse_row(row)

    def stored_row(self, ordinal: int) -> tuple[Int32, Float32, Bool]:
        """Return `sparse_row`, and which of its terms are borrowed."""
        segment, row = self._place(ordinal)
        return *segment.forward.sparse_row(row), segment.forward.is_borrowed(row)

    def vectors_of(self, document: int) -> Int64:
        """Return the ordinals of a document's vectors (n,), one or, if it is split, more."""
        if self.owners is None:
            return np.array([document], dtype=np.int64)
        return np.arange(*np.searchsorted(self.owners, [document, document + 1]), dtype=np.int64)

    def may_be_truncated(self, documents: Int64) -> Bool:
        """Return which of some documents, (m,), are not known to be read whole."""
        found = np.ones(len(documents), dtype=np.bool_)
        numbers = [part.documents for part in self.parts]
        for part, places in split_ordinals(self.parts, numbers, documents):
            local = part.documents.local(documents[places])
            found[places] = part.segment.may_be_truncated(local)
        return found

    def passages(self, ordinals: Int64) -> Sequence[Passage | None]:
        """Return which passages vectors are of; None for each if documents are not split."""
        if self.owners is None:
            return [None] * len(ordinals)
        return [segment.passage(row) for segment, row in map(self._place, ordinals.tolist())]

    def _place(self, ordinal: int) -> tuple[Segment, int]:
        asked = np.array([ordinal])
        ((part, _),) = self._split(asked)
        return part.segment, int(part.vectors.local(asked)[0])

    def _split(self, ordinals: Int64) -> Iterator[tuple[Part, Int64]]:
        return split_ordinals(self.parts, [part.vectors for part in self.parts], ordinals)

    def _restrict(self, where: Filter) -> View:
        found = [
            (part.segment, matching(where, part.segment.documents, part.documents.all()))
            for part in self.parts
        ]
        kept = [(segment, rows) for segment, rows in found if len(rows)]
        return View(kept, self.dim, lambda: self.corpus, self.whole)


class ViewDocuments:
    """The documents of a view by ordinal, and by id."""

    def __init__(self, parts: Sequence[Part], size: int) -> None:
        self._parts = parts
        self._size = size

    def __len__(self) -> int:
        return self._size

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
        return self._find([doc_id]).get(doc_id)

    def ordinal(self, doc_id: str) -> int:
        """Return the ordinal of a document; see `ordinals`."""
        return self.ordinals([doc_id])[0]

    def ordinals(self, doc_ids: Sequence[str]) -> list[int]:
        """Return the ordinals of documents in the order asked for; ids may repeat.

        Raises:
            DataError: if no document has one of these ids.
        """
        found = self._find(doc_ids)
        for doc_id in doc_ids:
            if doc_id not in found:
                raise DataError(f"no document of the index has the id {doc_id!r}")
        return [found[doc_id] for doc_id in doc_ids]

    def labels(self) -> Iterator[Labels]:
        """Yield all documents in order without their texts."""
        for part in self._parts:
            yield from part.segment.documents.labels(part.documents.all())

    def _find(self, doc_ids: Sequence[str]) -> dict[str, int]:
        found = {}
        for part in self._parts:
            for doc_id, local in part.segment.find(doc_ids).items():
                place = np.array([local])
                if part.mask is None or part.mask[part.segment.rows_of(place)[0]]:
                    found[doc_id] = int(part.documents.ordinals(place)[0])
        return found

    def _read(
        self,
        ordinals: Sequence[int] | Int64,
        read: Callable[[DocumentStore, Int64], list[Item]],
    ) -> list[Item]:
        asked = np.asarray(ordinals, dtype=np.int64)
        found: dict[int, Item] = {}
        for part, places in split_ordinals(
            self._parts, [part.documents for part in self._parts], asked
        ):
            items = read(part.segment.documents, part.documents.local(asked[places]))
            found.update(zip(places.tolist(), items, strict=True))
        return [found[place] for place in range(len(asked))]


class _Dense:
    """The dense candidate stores of all parts as one."""

    def __init__(self, parts: Sequence[Part], dim: int) -> None:
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

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def search(self, queries: SparseVectors, k: int) -> list[Ranking]:
        lists = [part.segment.sparse.search(queries, k, part.mask) for part in self._parts]
        return _joined(self._parts, lists, k)


def _owners(parts: Sequence[Part]) -> Int64 | None:
    """Return the document of each vector; None if documents are not split."""
    if not parts or parts[0].segment.record.passages is None:
        return None
    counts = np.concatenate([p.segment.count_rows(p.documents.all()) for p in parts])
    return np.repeat(np.arange(len(counts), dtype=np.int64), counts)


def _scan(parts: Sequence[Part]) -> Callable[..., Scan] | None:
    """Return what begins a scan of some segments; None if one of them has no outline."""
    scanned = [
        ScannedPart(outline, part.segment.sparse, part.mask, part.vectors.ordinals)
        for part in parts
        if (outline := part.segment.outline) is not None
    ]
    return partial(Scan, scanned) if len(scanned) == len(parts) else None


def _statistics(segments: Sequence[Segment], vocabulary_size: int) -> CorpusStatistics:
    """Count the live vectors of segments, and in how many of them each term is."""
    frequency, live = np.zeros(vocabulary_size, dtype=np.int64), 0
    for segment in segments:
        frequency += segment.forward.frequency
        live += len(segment.forward)
        is_live = segment.is_live_row()
        if is_live is not None:
            deleted = np.flatnonzero(~is_live)
            frequency -= segment.forward.count_terms(deleted)
            live -= len(deleted)
    return CorpusStatistics(live, frequency)


def _joined(parts: Sequence[Part], lists: Sequence[Sequence[Ranking]], k: int) -> list[Ranking]:
    """Join, for each query, the rankings of all parts."""
    joined = []
    for rankings in zip(*lists, strict=True):
        pairs = list(zip(parts, rankings, strict=True))
        ordinals = np.concatenate(
            [part.vectors.ordinals(ranking.ordinals) for part, ranking in pairs]
        )
        scores = np.concatenate([ranking.scores for ranking in rankings])
        joined.append(top_k(scores, k, ordinals))
    return joined
