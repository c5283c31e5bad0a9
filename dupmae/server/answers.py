"""What the engine finds, as the records that are sent."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dupmae.engine import (
    Explanation,
    FacetValue,
    Filter,
    Key,
    Manifest,
    SearchEngine,
    Snippet,
    snippets,
)
from dupmae.engine.fast import has_graph
from dupmae.server import models
from dupmae.server.indexes import ServedIndex
from dupmae.types import SearchResult

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
    mode: str
    snippets: bool
    texts: bool


def search_answers(options: SearchOptions, queries: Sequence[str]) -> list[models.Answer]:
    """Answer queries from one generation, as `SearchEngine.search_batch` would."""
    engine = options.index.pinned()
    weights = engine.choose_weights(options.dense_weight, options.sparse_weight, options.feedback)
    started = time.perf_counter()
    view = engine.select(options.where)
    encoded = engine.encode(queries, weights, view, mode=options.mode)
    searched = time.perf_counter()
    results = engine.search_encoded(
        queries,
        encoded,
        options.k,
        offset=options.offset,
        weights=weights,
        view=view,
        mode=options.mode,
    )
    counts = engine.facets(options.facets, options.where) if options.facets else {}
    hits = [_hits(engine, options, result) for result in results]
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
            documents=len(view.documents),
            proven=result.proven,
            bound=finite(result.bound),
            loss=result.loss,
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
            hnsw=has_graph(segment),
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
    engine: SearchEngine, options: SearchOptions, result: SearchResult
) -> list[models.FoundDocument]:
    ids = [hit.doc_id for hit in result.hits]
    documents = engine.documents.get([engine.documents.ordinal(doc_id) for doc_id in ids])
    passages: Sequence[Snippet | None] = [None] * len(ids)
    if options.snippets:
        passages = snippets(engine, result, ids)
    found = zip(result.hits, documents, passages, strict=True)
    return [
        models.FoundDocument(
            rank=rank,
            id=hit.doc_id,
            score=hit.score,
            dense=hit.dense,
            sparse=hit.sparse,
            title=document.title,
            text=document.text if options.texts else None,
            snippet=None if passage is None else _snippet(passage),
            metadata=dict(document.metadata),
        )
        for rank, (hit, document, passage) in enumerate(found, start=options.offset + 1)
    ]


def _snippet(passage: Snippet) -> models.Snippet:
    return models.Snippet(
        text=passage.text,
        highlights=[
            models.Highlight(start=each.start, end=each.end, weight=each.weight)
            for each in passage.highlights
        ],
        before=passage.before,
        after=passage.after,
    )
