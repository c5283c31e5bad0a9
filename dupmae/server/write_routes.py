"""The routes that write; there are none unless the server is writable.

Writes of all indexes take turns in one thread, while searches go on. A write that has begun is
finished, whether its client waits or not, and is answered when searches see it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter

from dupmae.engine import (
    SearchEngine,
    build_index,
    delete_documents,
    delete_matching,
    to_document,
)
from dupmae.errors import DataError
from dupmae.server import models
from dupmae.server.failures import RefusedError
from dupmae.server.indexes import ServedIndex
from dupmae.server.routes import FAILURES, IndexName
from dupmae.server.service import Service, ServiceOf

Result = TypeVar("Result")

BUSY: dict[int | str, dict[str, Any]] = {
    409: {"model": models.Failure, "description": "Another process writes to the index."}
}

router = APIRouter(responses=FAILURES | BUSY)


@router.post("/documents")
async def index_documents(
    asked: models.IndexRequest, service: ServiceOf, index: IndexName = None
) -> models.Indexed:
    """Index documents, all or none; they replace those of the same ids."""
    served = service.index(asked.index or index)

    def write(engine: SearchEngine) -> None:
        documents = [
            to_document(document.model_dump(by_alias=True), f"document {number}")
            for number, document in enumerate(asked.documents, start=1)
        ]
        build_index(documents, engine.encoder, served.folder)

    _, engine = await _written(service, served, write)
    return models.Indexed(
        indexed=len(asked.documents),
        documents=len(engine),
        generation=engine.manifest.generation,
    )


@router.post("/delete")
async def delete(
    asked: models.DeleteRequest, service: ServiceOf, index: IndexName = None
) -> models.Deleted:
    """Delete all documents of these ids or none, or all that match a filter."""
    served = service.index(asked.index or index)
    where = service.filter(asked.where)
    if where is not None:
        return await _deleted(service, served, lambda: delete_matching(served.folder, where))
    if asked.ids is None:  # a filter of spaces must not mean all documents
        raise RefusedError(422, "bad_filter", "the filter is empty; say which documents to delete")
    return await _delete_ids(service, served, asked.ids)


@router.delete("/documents/{doc_id:path}")
async def delete_document(
    doc_id: str, service: ServiceOf, index: IndexName = None
) -> models.Deleted:
    """Delete one document."""
    return await _delete_ids(service, service.index(index), [doc_id])


async def _delete_ids(service: Service, served: ServedIndex, ids: Sequence[str]) -> models.Deleted:
    def work() -> int:
        try:
            return delete_documents(served.folder, ids)
        except DataError as error:
            raise RefusedError(404, "no_document", str(error)) from None

    return await _deleted(service, served, work)


async def _deleted(
    service: Service, served: ServedIndex, work: Callable[[], int]
) -> models.Deleted:
    deleted, engine = await _written(service, served, lambda _: work())
    return models.Deleted(
        deleted=deleted, documents=len(engine), generation=engine.manifest.generation
    )


async def _written(
    service: Service, served: ServedIndex, work: Callable[[SearchEngine], Result]
) -> tuple[Result, SearchEngine]:
    """Return what a write gives, and the engine that sees it."""

    def write() -> tuple[Result, SearchEngine]:
        result = work(served.pinned())
        served.refresh()
        return result, served.pinned()

    return await asyncio.wrap_future(service.writes.submit(write))
