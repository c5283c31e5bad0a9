"""What the engine finds, as the records that are sent."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dupmae.engine import Explanation, FacetValue, Filter, Key, Manifest, SearchEngine
from dupmae.engine.view import View
from dupmae.server import models
from dupmae.server.indexes import ServedIndex
from dupmae.server.snippets import snippet_of
from dupmae.types import Document, Encoded, SearchResult

FACET_VALUES = 1000
"""Values of a facet that are sent, the most frequent ones."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What is asked of an index beside the query; queries of equal options are answered at once."""

    index: ServedIndex
    k: int
    offset: int
    where: Filter | None
    facets: tuple[Key, ...]
    dense_weight: float | None
    sparse_weight: float | None
    feedback: float | None
    snippets: bool
    texts: bool


def search_answers(options: SearchOptions, queries: Sequence[str]) -> list[models.Answer]:
    """Answer queries from one generation, as `SearchEngine.search_batch` would."""
    engine = options.index.pinned()
    weights = engine.choose_weights(options.dense_weight, options.sparse_weight, options.feedback)
    started = time.perf_counter()
    view = engine.select(options.where)
    encoded = engine.encode(queries, weights, view)
    searched = time.perf_counter()
    results = engine.search_encoded(
        queries, encoded, options.k, offset=options.offset, weights=weights, view=view
    )
    counts = engine.facets(options.facets, options.where) if options.facets else {}
    hits = [_hits(engine, options, encoded, *each) for each in enumerate(results)]
    encode_ms = 1000 * (searched - started)
    search_ms = 1000 * (time.perf_counter() - searched)
    timing = models.Timing(encode_ms=encode_ms, search_ms=search_ms, total_ms=encode_ms + search_ms)
    return [
        models.Answer(
            query=result.query,
            index=options.index.name,
            generation=engine.manifest.generation,
            k=options.k,
            offset=options.offset,
            documents=len(view),
            proven=result.proven,
            bound=finite(result.bound),
            depth=result.depth,
            hits=found,
            facets=facet_values(counts),
            timing=timing,
        )
        for result, found in zip(results, hits, strict=True)
    ]


def explained(explanation: Explanation, result: SearchResult, documents: int) -> models.Explained:
    """Return an explanation with the proof of the answer that it belongs to."""
    return models.Explained(
        query=explanation.query,
        id=explanation.doc_id,
        rank=explanation.rank,
        documents=documents,
        k=explanation.k,
        kth_score=explanation.kth_score,
        gap=explanation.gap,
        score=explanation.score,
        dense_weight=explanation.weights.dense,
        sparse_weight=explanation.weights.sparse,
        feedback=explanation.weights.feedback,
        dense=explanation.dense,
        sparse=explanation.sparse,
        terms=[
            models.Term(
                term=term.text,
                query_weight=term.query_weight,
                document_weight=term.document_weight,
                product=term.product,
            )
            for term in explanation.terms
        ],
        missing=[
            models.MissingTerm(term=term.text, query_weight=term.query_weight)
            for term in explanation.missing
        ],
        bound=finite(result.bound),
        depth=result.depth,
    )


def facet_values(
    counts: Mapping[str, Sequence[FacetValue]],
) -> dict[str, list[models.CountedValue]]:
    """Return the most frequent values of facets."""
    return {
        key: [
            models.CountedValue(value=found.value, documents=found.documents)
            for found in values[:FACET_VALUES]
        ]
        for key, values in counts.items()
    }


def index_info(manifest: Manifest) -> models.Info:
    """Return what `info` says of an index."""
    segments = [
        models.SegmentInfo(
            name=segment.name,
            documents=segment.documents,
            deleted=segment.deleted,
            bytes=sum(file.size for file in segment.files),
        )
        for segment in manifest.segments
    ]
    return models.Info(
        documents=manifest.documents,
        deleted=sum(segment.deleted for segment in manifest.segments),
        bytes=sum(file.size for file in manifest.files),
        generation=manifest.generation,
        created=manifest.created,
        encoder=manifest.encoder_name,
        seal=manifest.encoder_seal,
        dense_dim=manifest.dense_dim,
        vocabulary_size=manifest.vocabulary_size,
        format_version=manifest.format_version,
        segments=segments,
    )


def finite(bound: float) -> float | None:
    """Return a bound as JSON can say it: −∞, when all documents were scored, is null."""
    return bound if math.isfinite(bound) else None


def _hits(
    engine: SearchEngine, options: SearchOptions, encoded: Encoded, row: int, result: SearchResult
) -> list[models.FoundDocument]:
    ordinals = [engine.documents.ordinal(hit.doc_id) for hit in result.hits]
    documents = engine.documents.get(ordinals)
    snippets: list[models.Snippet | None] = [None] * len(documents)
    if options.snippets:
        snippets = _snippets(engine, encoded, row, ordinals, documents)
    found = zip(result.hits, documents, snippets, strict=True)
    return [
        models.FoundDocument(
            rank=rank,
            id=hit.doc_id,
            score=hit.score,
            dense=hit.dense,
            sparse=hit.sparse,
            title=document.title,
            text=document.text if options.texts else None,
            snippet=snippet,
            metadata=dict(document.metadata),
        )
        for rank, (hit, document, snippet) in enumerate(found, start=options.offset + 1)
    ]


def _snippets(
    engine: SearchEngine,
    encoded: Encoded,
    row: int,
    ordinals: Sequence[int],
    documents: Sequence[Document],
) -> list[models.Snippet | None]:
    parts = _term_parts(engine, encoded, row, engine.view, ordinals)
    return [
        snippet_of(document.text, of_terms)
        for document, of_terms in zip(documents, parts, strict=True)
    ]


def _term_parts(
    engine: SearchEngine, encoded: Encoded, row: int, view: View, ordinals: Sequence[int]
) -> list[dict[str, float]]:
    """Return what each term adds to each document's sparse part, by the vocabulary's entry."""
    terms, weights = encoded.sparse.row(row)
    texts = np.array(engine.encoder.term_texts(terms.tolist()), dtype=object)
    parts = []
    for ordinal in ordinals:
        own, own_weights = view.sparse_row(ordinal)
        _, in_query, in_document = np.intersect1d(
            terms, own, assume_unique=True, return_indices=True
        )
        products = weights[in_query].astype(np.float64) * own_weights[in_document]
        parts.append(dict(zip(texts[in_query].tolist(), products.tolist(), strict=True)))
    return parts
