"""Searching an index folder: encode, fuse with proof, give document ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np

from dupmae.engine.facets import FacetValue, count_values
from dupmae.engine.fast import choose_fuse
from dupmae.engine.feedback import FEEDBACK_DOCUMENTS, feed_back
from dupmae.engine.filter_grammar import parse_keys, to_filter
from dupmae.engine.filters import Filter, Key
from dupmae.engine.fusion import Fused
from dupmae.engine.generation import Generation, open_generation
from dupmae.engine.manifest import Manifest
from dupmae.engine.view import View, ViewDocuments
from dupmae.engine.weights import Weights
from dupmae.errors import UsageError
from dupmae.results import Hits, SearchResult
from dupmae.types import Encoded, SparseVectors, TextEncoder

QUERY_BLOCK = 64
"""Queries encoded and searched at once: enough for both to run at their batch speed."""


class SearchEngine:
    """Answers queries from one generation of an index, each answer with its proof.

    It keeps the generation that it opened: what is written to the folder later changes none of its
    answers until `reload`. Any number of threads may use it. Close it, or use it as a context
    manager.
    """

    def __init__(
        self, folder: Path, encoder: TextEncoder, weights: Weights, generation: Generation
    ) -> None:
        self.encoder = encoder
        self.weights = weights
        self._folder = folder
        self._generation = generation

    @classmethod
    def open(
        cls,
        folder: Path | str,
        encoder: TextEncoder,
        *,
        dense_weight: float = 1.0,
        sparse_weight: float = 1.0,
        feedback: float = 0.0,
    ) -> SearchEngine:
        """Open the live generation of an index.

        Args:
            folder: what `build_index` was given.
            encoder: the one that the index was built by.
            dense_weight: w_d of queries that name none, ≥ 0.
            sparse_weight: w_s of queries that name none, ≥ 0.
            feedback: β of queries that name none, ≥ 0: how far a query is moved towards the
                documents that answer it best (`feedback.py`).

        Raises:
            IndexMissingError: if there is no index, or it is damaged or of another format.
            SealError: if another encoder built it, or this one makes other vectors by now.
            UsageError: if a weight is out of its range.
        """
        weights = Weights(dense_weight, sparse_weight, feedback)
        return cls(Path(folder), encoder, weights, open_generation(Path(folder), encoder))

    def reload(self) -> bool:
        """Take up the newest generation, of which only what is new is opened.

        Searches that other threads have begun end on the generation that they began on.

        Returns:
            Whether there was a newer one.

        Raises:
            IndexMissingError, SealError: as `open`; the engine then stays as it was.
        """
        newest = open_generation(self._folder, self.encoder, self._generation)
        is_new = newest.manifest != self._generation.manifest
        if is_new:
            self._generation = newest
        return is_new

    def pinned(self) -> SearchEngine:
        """Return an engine that keeps this generation, whoever reloads this one.

        Both share all files, so closing one closes the other.
        """
        return SearchEngine(self._folder, self.encoder, self.weights, self._generation)

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def manifest(self) -> Manifest:
        """The state that is searched."""
        return self._generation.manifest

    @property
    def view(self) -> View:
        """The documents' vectors, by ordinal; of split documents, their passages'."""
        return self._generation.view

    @property
    def documents(self) -> ViewDocuments:
        """The documents, by ordinal and by id."""
        return self._generation.view.documents

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        offset: int = 0,
        where: Filter | str | None = None,
        dense_weight: float | None = None,
        sparse_weight: float | None = None,
        feedback: float | None = None,
        mode: str = "exact",
    ) -> SearchResult:
        """Return the k best documents for a query; see `search_batch`."""
        (result,) = self.search_batch(
            [query],
            k,
            offset=offset,
            where=where,
            dense_weight=dense_weight,
            sparse_weight=sparse_weight,
            feedback=feedback,
            mode=mode,
        )
        return result

    def search_batch(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        offset: int = 0,
        where: Filter | str | None = None,
        dense_weight: float | None = None,
        sparse_weight: float | None = None,
        feedback: float | None = None,
        mode: str = "exact",
    ) -> list[SearchResult]:
        """Return the k best documents for each query, in the mode "exact" all of them proven.

        Every document has a score, also one that shares no term with the query, so exactly
        min(k, N - offset) of N documents that match are returned. A document's score does not
        depend on the filter, but for feedback, which learns from documents that match.

        Of documents that are split, each scores as its best passage does, which its hit names.

        Args:
            queries: any texts; an empty one is whatever the encoder makes of it.
            k: hits a query, ≥ 1.
            offset: best documents to leave out, ≥ 0: pages of k join to one ranking.
            where: which documents count, as a filter or an expression; all if not given.
            dense_weight: w_d ≥ 0; the engine's if not given.
            sparse_weight: w_s ≥ 0; the engine's if not given.
            feedback: β ≥ 0; the engine's if not given.
            mode: "exact", or "fast", of an index with a graph: scores are exact too, but a document
                may be missing, unless `proven`, which scores up to `loss` above the last hit.

        Raises:
            UsageError: if a number is out of its range, the expression is wrong, or there is no
                such mode or no graph.
        """
        weights = self.choose_weights(dense_weight, sparse_weight, feedback)
        if k < 1:
            raise UsageError(f"k must be at least 1, found {k}")
        if offset < 0:
            raise UsageError(f"the offset must be at least 0, found {offset}")
        view = self.select(where)
        results = []
        for start in range(0, len(queries), QUERY_BLOCK):
            block = queries[start : start + QUERY_BLOCK]
            encoded = self.encode(block, weights, view, mode=mode)
            results += self.search_encoded(
                block, encoded, k, offset=offset, weights=weights, view=view, mode=mode
            )
        return results

    def search_encoded(
        self,
        queries: Sequence[str],
        encoded: Encoded,
        k: int,
        *,
        offset: int,
        weights: Weights,
        view: View,
        mode: str = "exact",
    ) -> list[SearchResult]:
        """Do the second half of `search_batch`: answer queries with what `encode` made of them."""
        fuse = choose_fuse(mode, view.whole.parts)
        fused = fuse(encoded, view.stores, offset + k, weights)
        return _results(view, queries, encoded.sparse, fused, offset)

    def count(self, where: Filter | str | None = None) -> int:
        """Return how many documents match a filter; all if none is given.

        Raises:
            UsageError: if the expression is wrong.
        """
        return len(self.select(where).documents)

    def facets(
        self, keys: Sequence[Key] | str, where: Filter | str | None = None
    ) -> dict[str, tuple[FacetValue, ...]]:
        """Count the values at keys over all documents that match a filter.

        Args:
            keys: as values, or written with commas between them.
            where: which documents count; all if not given.

        Returns:
            Of each key, as it is written in a filter, its values, most frequent first.

        Raises:
            UsageError: if keys or filter are written wrongly.
        """
        chosen = parse_keys(keys) if isinstance(keys, str) else keys
        return count_values(self.select(where).documents.labels(), chosen)

    def select(self, where: Filter | str | None) -> View:
        """Return the view of the documents that match a filter; of all if none is given."""
        view = self.view
        return view if where is None else view.restricted(to_filter(where))

    def encode(
        self,
        queries: Sequence[str],
        weights: Weights,
        view: View | None = None,
        *,
        mode: str = "exact",
    ) -> Encoded:
        """Encode queries for this index.

        A term's weight may depend on how rare it is here, and with feedback a query is moved
        towards its best documents here.

        Args:
            queries: any texts.
            weights: of the first answer, and of feedback.
            view: of the documents to search; all of the newest generation if not given.
            mode: of the first answer.
        """
        if view is None:
            view = self.view
        if not weights.feedback:
            return self.encoder.encode_queries(queries, view.corpus)
        encoded = self.encode(queries, replace(weights, feedback=0.0), view, mode=mode)
        fuse = choose_fuse(mode, view.whole.parts)
        first = fuse(encoded, view.stores, FEEDBACK_DOCUMENTS, weights)
        return feed_back(encoded, [fused.best for fused in first], view, weights.feedback)

    def choose_weights(
        self, dense: float | None, sparse: float | None, feedback: float | None
    ) -> Weights:
        """Return the weights to use: those given, else the engine's own."""
        return Weights(
            self.weights.dense if dense is None else dense,
            self.weights.sparse if sparse is None else sparse,
            self.weights.feedback if feedback is None else feedback,
        )

    def close(self) -> None:
        """Close the files that are not merely mapped."""
        self._generation.close()

    def __enter__(self) -> SearchEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _results(
    view: View,
    queries: Sequence[str],
    terms: SparseVectors,
    fused: Sequence[Fused],
    offset: int,
) -> list[SearchResult]:
    """Return answers with ids, of which each is looked up once for all queries."""
    lists = [answer.ranking.ordinals[offset:] for answer in fused]
    distinct, places = np.unique(np.concatenate(lists), return_inverse=True)
    ids = np.array(view.documents.ids(distinct), dtype=object)[places].tolist()
    passages = view.passages(np.concatenate([answer.best.ordinals[offset:] for answer in fused]))
    results, start = [], 0
    for query, row, answer in zip(queries, terms, fused, strict=True):
        parts = (answer.ranking.scores, answer.dense, answer.sparse)
        scores, dense, sparse = (part[offset:].tolist() for part in parts)
        end = start + len(scores)
        hits = Hits(ids[start:end], scores, dense, sparse, passages[start:end])
        start = end
        results.append(SearchResult(query, hits, answer.proven, answer.bound, answer.depth, row))
    return results
