"""What the engine finds, as the records that are sent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dupmae.engine import (
    Filter,
    Key,
    Manifest,
    SearchEngine,
    Weights,
    bound_field,
    explain,
    explanation_fields,
    facet_fields,
    hit_fields,
    look_up,
    manifest_fields,
    snippet,
)
from dupmae.results import SearchResult
from dupmae.server import models
from dupmae.server.indexes import ServedIndex

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
    facets: Any = facet_fields(counts, FACET_VALUES)
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
            bound=bound_field(result.bound),
            loss=result.loss,
            depth=result.depth,
            hits=found,
            facets=facets,
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
    view = engine.select(where)
    encoded = engine.encode([query], weights, view)
    explanation = explain(
        engine,
        query,
        doc_id,
        k=k,
        where=where,
        dense_weight=weights.dense,
        sparse_weight=weights.sparse,
        feedback=weights.feedback,
        encoded=encoded,
    )
    (result,) = engine.search_encoded([query], encoded, k, offset=0, weights=weights, view=view)
    fields: dict[str, Any] = {
        "passage": None,
        **explanation_fields(explanation, len(view.documents)),
        "snippet": asdict(snippet(engine, explanation, doc_id, where=where)),
    }
    return models.Explained(**fields, bound=bound_field(result.bound), depth=result.depth)


def index_info(manifest: Manifest) -> models.Info:
    """Return what `info` says of an index."""
    return models.Info(**manifest_fields(manifest))


def _hits(
    engine: SearchEngine, options: SearchOptions, result: SearchResult
) -> list[models.FoundDocument]:
    found = look_up(engine, result, offset=options.offset, with_snippets=options.snippets)
    absent: dict[str, Any] = {"passage": None, "snippet": None}
    left_out = {} if options.texts else {"text": None}
    return [models.FoundDocument(**{**absent, **hit_fields(each), **left_out}) for each in found]
