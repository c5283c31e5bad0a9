"""What the engine finds, as the records that are sent."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from dupmae.engine import (
    FacetValue,
    Filter,
    Key,
    Manifest,
    SearchEngine,
    Snippet,
    Weights,
    explain,
    explanation_fields,
    manifest_fields,
    snippet,
    snippets,
)
from dupmae.server import models
from dupmae.server.indexes import ServedIndex
from dupmae.types import Document, Hit, Passage, SearchResult

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


def take_apart(
    engine: SearchEngine, query: str, doc_id: str, k: int, where: Filter | None, weights: Weights
) -> models.Explained:
    """Explain the score of one document, with the proof of the answer that it belongs to.

    Raises:
        DataError: if no document has that id, or it does not match.
    """
    dense, sparse, feedback = weights.dense, weights.sparse, weights.feedback
    explanation = explain(
        engine,
        query,
        doc_id,
        k=k,
        where=where,
        dense_weight=dense,
        sparse_weight=sparse,
        feedback=feedback,
    )
    result = engine.search(
        query, k, where=where, dense_weight=dense, sparse_weight=sparse, feedback=feedback
    )
    hit = Hit(doc_id, explanation.score, explanation.dense, explanation.sparse, explanation.passage)
    # As if the document were all that was found: its snippet is of the passage explained.
    found = snippet(engine, replace(result, hits=(hit,)), doc_id, where=where)
    return models.Explained(
        **{"passage": None, **explanation_fields(explanation, engine.count(where))},
        snippet=_snippet(found),
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
    return models.Info(**manifest_fields(manifest))


def finite(bound: float) -> float | None:
    """Return a bound as JSON can say it: −∞, when all documents were scored, is null."""
    return bound if math.isfinite(bound) else None


def _hits(
    engine: SearchEngine, options: SearchOptions, result: SearchResult
) -> list[models.FoundDocument]:
    ids = [hit.doc_id for hit in result.hits]
    documents = engine.documents.get([engine.documents.ordinal(doc_id) for doc_id in ids])
    cut: Sequence[Snippet | None] = [None] * len(ids)
    if options.snippets:
        cut = snippets(engine, result, ids)
    found = zip(result.hits, documents, cut, strict=True)
    return [
        models.FoundDocument(
            rank=rank,
            id=hit.doc_id,
            score=hit.score,
            dense=hit.dense,
            sparse=hit.sparse,
            title=document.title,
            text=document.text if options.texts else None,
            passage=_passage(hit.passage, _scoring_text(document, hit.passage)),
            snippet=None if shown is None else _snippet(shown),
            metadata=dict(document.metadata),
        )
        for rank, (hit, document, shown) in enumerate(found, start=options.offset + 1)
    ]


def _passage(passage: Passage | None, text: str) -> models.Passage | None:
    return None if passage is None else models.Passage(**asdict(passage), text=text)


def _scoring_text(document: Document, passage: Passage | None) -> str:
    return "" if passage is None else document.text[passage.start : passage.end]


def _snippet(found: Snippet) -> models.Snippet:
    return models.Snippet(
        text=found.text,
        highlights=[
            models.Highlight(start=each.start, end=each.end, weight=each.weight)
            for each in found.highlights
        ],
        before=found.before,
        after=found.after,
    )
