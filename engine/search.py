"""Searching an index folder: encode, fuse with proof, give document ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from dupmae.engine.feedback import FEEDBACK_DOCUMENTS, feed_back
from dupmae.engine.fusion import Fused, Stores, Weights, fuse_batch
from dupmae.engine.manifest import (
    DOCUMENTS_NAME,
    FORWARD_NAME,
    Manifest,
    read_manifest,
    segment_folder,
)
from dupmae.errors import IndexMissingError, SealError, UsageError
from dupmae.indexes.documents import DocumentStore
from dupmae.indexes.faiss_store import FaissFlat
from dupmae.indexes.forward import ForwardStore
from dupmae.indexes.sparse import open_sparse
from dupmae.types import CorpusStatistics, Encoded, Hit, SearchResult, TextEncoder

QUERY_BLOCK = 64
"""Queries encoded and searched at once: enough for both to run at their batch speed."""


class SearchEngine:
    """Answers queries from one generation of an index, each answer with its proof.

    It keeps the generation that it opened: a later build into the same folder changes none of
    its answers. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        manifest: Manifest,
        encoder: TextEncoder,
        weights: Weights,
        forward: ForwardStore,
        stores: Stores,
        documents: DocumentStore,
    ) -> None:
        self.manifest = manifest
        self.encoder = encoder
        self.weights = weights
        self.forward = forward
        self.documents = documents
        self._stores = stores

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
            IndexMissingError: if there is no index, or it is damaged or of a newer format.
            SealError: if another encoder built it.
            UsageError: if a weight is out of its range.
        """
        weights = Weights(dense_weight, sparse_weight, feedback)
        try:
            return cls._open(Path(folder), encoder, weights)
        except (IndexMissingError, OSError):
            # A build may have put a new generation in the place of the one we began to open.
            # Then the second try finds it; if not, it fails as the first did.
            return cls._open(Path(folder), encoder, weights)

    @classmethod
    def _open(cls, folder: Path, encoder: TextEncoder, weights: Weights) -> SearchEngine:
        manifest = read_manifest(folder)
        _check_seal(folder, manifest, encoder)
        segment = segment_folder(folder, manifest)
        forward = ForwardStore.open(segment / FORWARD_NAME)
        sparse = open_sparse(segment)
        documents = DocumentStore.open(segment / DOCUMENTS_NAME)
        counts = (len(forward), len(sparse), len(documents))
        if set(counts) != {manifest.documents}:
            documents.close()
            raise IndexMissingError(
                f"index {folder} is damaged: its manifest counts {manifest.documents} documents, "
                f"its vectors, terms and texts {counts}; rebuild it with --replace"
            )
        stores = Stores(forward, FaissFlat(forward.dense), sparse)
        return cls(manifest, encoder, weights, forward, stores, documents)

    def __len__(self) -> int:
        return len(self.forward)

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        dense_weight: float | None = None,
        sparse_weight: float | None = None,
        feedback: float | None = None,
    ) -> SearchResult:
        """Return the k best documents for a query; see `search_batch`."""
        (result,) = self.search_batch(
            [query],
            k,
            dense_weight=dense_weight,
            sparse_weight=sparse_weight,
            feedback=feedback,
        )
        return result

    def search_batch(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        dense_weight: float | None = None,
        sparse_weight: float | None = None,
        feedback: float | None = None,
    ) -> list[SearchResult]:
        """Return the k best documents for each query, exactly and proven.

        Every document has a score, also one that shares no term with the query, so exactly
        min(k, N) are returned.

        Args:
            queries: any texts; an empty one is whatever the encoder makes of it.
            k: hits a query, ≥ 1.
            dense_weight: w_d ≥ 0; the engine's if not given.
            sparse_weight: w_s ≥ 0; the engine's if not given.
            feedback: β ≥ 0; the engine's if not given.

        Raises:
            UsageError: if k or a weight is out of its range.
        """
        weights = self.choose_weights(dense_weight, sparse_weight, feedback)
        if k < 1:
            raise UsageError(f"k must be at least 1, found {k}")
        results = []
        for start in range(0, len(queries), QUERY_BLOCK):
            block = queries[start : start + QUERY_BLOCK]
            fused = fuse_batch(self.encode(block, weights), self._stores, k, weights)
            results += [self._result(*pair) for pair in zip(block, fused, strict=True)]
        return results

    def encode(self, queries: Sequence[str], weights: Weights) -> Encoded:
        """Encode queries for this index.

        A term's weight may depend on how rare it is here, and with feedback a query is moved
        towards its best documents here.
        """
        statistics = CorpusStatistics(len(self), self.forward.frequency)
        encoded = self.encoder.encode_queries(queries, statistics)
        if not weights.feedback:
            return encoded
        first = fuse_batch(encoded, self._stores, FEEDBACK_DOCUMENTS, weights)
        return feed_back(
            encoded, [fused.ranking for fused in first], self.forward, weights.feedback
        )

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
        self.documents.close()

    def __enter__(self) -> SearchEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _result(self, query: str, fused: Fused) -> SearchResult:
        hits = zip(
            self.documents.ids(fused.ranking.ordinals),
            fused.ranking.scores.tolist(),
            fused.dense.tolist(),
            fused.sparse.tolist(),
            strict=True,
        )
        return SearchResult(
            query, tuple(Hit(*hit) for hit in hits), fused.proven, fused.bound, fused.depth
        )


def _check_seal(folder: Path, manifest: Manifest, encoder: TextEncoder) -> None:
    if manifest.encoder_seal != encoder.seal:
        raise SealError(
            f"index {folder} was built by encoder {manifest.encoder_name} "
            f"(seal {manifest.encoder_seal[:12]}), not by {encoder.name} "
            f"(seal {encoder.seal[:12]}); load that encoder, or rebuild the index with --replace"
        )
