"""The routes that read: search, explain, facets, documents, and what the server says of itself."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from dupmae.engine import facet_fields
from dupmae.engine.fast import choose_fuse
from dupmae.errors import DataError
from dupmae.server import models
from dupmae.server.answers import FACET_VALUES, SearchOptions, index_info, take_apart
from dupmae.server.failures import RefusedError
from dupmae.server.indexes import ServedIndex
from dupmae.server.service import Service, ServiceOf, milliseconds_since

FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": models.Failure, "description": what}
    for status, what in {
        400: "Not an HTTP request with a JSON body.",
        401: "A key is missing or wrong.",
        403: "The key, or the page that sends this, may not.",
        404: "There is none.",
        408: "The body came too slowly.",
        413: "The body is too long.",
        421: "The Host header names another server.",
        422: "A value is wrong or beyond a limit.",
        500: "The server failed.",
        503: "Too much to do; see Retry-After.",
        504: "No answer within the time limit.",
    }.items()
}
IndexName = Annotated[
    str | None, Query(alias="index", description="Name of the index; the first one if not given.")
]

router = APIRouter(responses=FAILURES)


@router.post("/search")
async def search(
    asked: models.SearchRequest, request: Request, service: ServiceOf, index: IndexName = None
) -> models.Answer | models.Answers:
    """Find the k documents that score highest for a query or for each of several, proven."""
    started = time.perf_counter()
    queries = [asked.query] if asked.queries is None else asked.queries
    if len(queries) > service.settings.max_queries:
        most = service.settings.max_queries
        message = f"a request may have {most:,} queries, found {len(queries):,}"
        raise RefusedError(422, "bad_value", message)
    chosen = [service.check_query(query) for query in queries if query is not None]
    options = _options(service, service.index(asked.index or index), asked)
    answers = await service.wait(request, service.searches.submit(options, chosen))
    timing = answers[0].timing.model_copy(update={"total_ms": milliseconds_since(started)})
    timed = [answer.model_copy(update={"timing": timing}) for answer in answers]
    return timed[0] if asked.queries is None else models.Answers(answers=timed, timing=timing)


@router.post("/explain")
async def explain_score(
    asked: models.ExplainRequest, request: Request, service: ServiceOf, index: IndexName = None
) -> models.Explained:
    """Take the score of one document apart: its dense part and each of its terms."""
    query = service.check_query(asked.query)
    service.check_rank(asked.k)
    engine = service.index(asked.index or index).pinned()
    where = service.filter(asked.where)
    weights = engine.choose_weights(asked.dense_weight, asked.sparse_weight, asked.feedback)

    def explained() -> models.Explained:
        try:
            return take_apart(engine, query, asked.id, asked.k, where, weights)
        except DataError as error:
            raise RefusedError(404, "no_document", str(error)) from None

    return await service.read(request, explained)


@router.post("/facets")
async def facets(
    asked: models.FacetsRequest, request: Request, service: ServiceOf, index: IndexName = None
) -> models.Facets:
    """Count the values at keys over all documents that match; the 1,000 most frequent of each."""
    engine = service.index(asked.index or index).pinned()
    keys, where = service.keys(asked.facets), service.filter(asked.where)

    def count() -> models.Facets:
        found: Any = facet_fields(engine.facets(keys, where), FACET_VALUES)
        return models.Facets(documents=engine.count(where), facets=found)

    return await service.read(request, count)


@router.get("/documents/{doc_id:path}")
async def document(
    doc_id: str, request: Request, service: ServiceOf, index: IndexName = None
) -> models.StoredDocument:
    """Return one document."""
    engine = service.index(index).pinned()

    def look_up() -> models.StoredDocument:
        ordinal = engine.documents.find(doc_id)
        if ordinal is None:
            raise RefusedError(404, "no_document", "no document of the index has that id")
        (found,) = engine.documents.get([ordinal])
        return models.StoredDocument(
            id=found.doc_id, title=found.title, text=found.text, metadata=dict(found.metadata)
        )

    return await service.read(request, look_up)


@router.get("/indexes")
async def indexes(service: ServiceOf) -> models.IndexNames:
    """Name the indexes that are served."""
    first = next(iter(service.indexes))
    names = []
    for name, index in service.indexes.items():
        manifest = index.pinned().manifest
        names.append(
            models.IndexName(
                name=name,
                documents=manifest.documents,
                model=manifest.encoder_name,
                default=name == first,
            )
        )
    return models.IndexNames(indexes=names)


@router.get("/info")
async def info(service: ServiceOf, index: IndexName = None) -> models.Info:
    """Say what an index holds, and by which encoder."""
    return index_info(service.index(index).pinned().manifest)


@router.get("/health")
async def health() -> models.Status:
    """Say that the server lives."""
    return models.Status(status="ok")


@router.get("/ready")
async def ready() -> models.Status:
    """Say that the server answers: it does from its first request on, its indexes being open."""
    return models.Status(status="ok")


@router.get("/metrics", response_class=Response)
async def metrics(service: ServiceOf) -> Response:
    """Give counts and times as Prometheus reads them."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _options(service: Service, index: ServedIndex, asked: models.SearchRequest) -> SearchOptions:
    service.check_page(asked.k, asked.offset)
    engine = index.pinned()
    engine.choose_weights(asked.dense_weight, asked.sparse_weight, asked.feedback)
    choose_fuse(asked.mode, engine.view.parts)
    return SearchOptions(
        index=index,
        k=asked.k,
        offset=asked.offset,
        where=service.filter(asked.where),
        facets=service.keys(asked.facets),
        dense_weight=asked.dense_weight,
        sparse_weight=asked.sparse_weight,
        feedback=asked.feedback,
        mode=asked.mode,
        snippets=asked.snippets,
        texts=asked.texts,
    )
