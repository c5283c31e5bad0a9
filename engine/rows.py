"""The vectors of several stores in one row, such as those of documents that lend terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np

from dupmae.engine.numbers import Numbers, split_ordinals
from dupmae.indexes.forward import ForwardStore
from dupmae.indexes.kernels import row_positions
from dupmae.types import CorpusStatistics, Float32, Float64, Int32, Int64


class Rows:
    """The vectors of several stores in one row, of each those at some ordinals."""

    def __init__(self, stores: Sequence[tuple[ForwardStore, Int64]]) -> None:
        self._stores = [store for store, rows in stores if len(rows)]
        chosen = [rows for _, rows in stores if len(rows)]
        starts = accumulate(map(len, chosen), initial=0)
        self._numbers = [
            Numbers(start, len(rows), rows) for start, rows in zip(starts, chosen, strict=False)
        ]

    def __len__(self) -> int:
        return sum(numbers.size for numbers in self._numbers)

    def places(self, start: int, size: int) -> Int64:
        """Return up to `size` places from `start` on."""
        return np.arange(start, min(start + size, len(self)))

    def dense(self, places: Int64) -> Float32:
        """Return copies of dense vectors."""
        found = np.empty((len(places), self._stores[0].dim), dtype=np.float32)
        for store, inside, rows in self._split(places):
            found[inside] = store.dense[rows]
        return found

    def own_terms(self, places: Int64) -> tuple[Int64, Int32, Float32]:
        """Return each own term of some vectors: at which of the places, its id, its weight.

        In the order of places and, there, of terms.
        """
        found = [(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))]
        for store, inside, rows in self._split(places):
            owners, positions = row_positions(store.sparse, rows)
            if store.borrowed is not None:
                is_own = ~store.borrowed[positions]
                owners, positions = owners[is_own], positions[is_own]
            terms, weights = store.sparse.terms[positions], store.sparse.weights[positions]
            found.append((inside[owners], terms, weights))
        owners, terms, weights = map(np.concatenate, zip(*found, strict=True))
        # Else sums, to their last bit, would depend on the stores that vectors lie in.
        order = np.argsort(owners, kind="stable")
        return owners[order], terms[order], weights[order]

    def idf(self) -> Float64:
        """Return BM25's idf of each term among all these vectors, by their own terms."""
        frequency = np.zeros(len(self._stores[0].frequency), dtype=np.int64)
        for store, numbers in zip(self._stores, self._numbers, strict=True):
            absent = np.setdiff1d(np.arange(len(store)), numbers.all())
            frequency += store.own_frequency() - store.count_terms(absent, own=True)
        return CorpusStatistics(len(self), frequency).idf()

    def _split(self, places: Int64) -> Iterator[tuple[ForwardStore, Int64, Int64]]:
        """Yield each store, which of the places are there, and the rows that these are."""
        pairs = list(zip(self._stores, self._numbers, strict=True))
        for (store, numbers), inside in split_ordinals(pairs, self._numbers, places):
            yield store, inside, numbers.local(places[inside])
