"""What all routes share: the open indexes, the threads that ask them, and the limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from dupmae.engine import Filter, Key, parse_filter, parse_keys
from dupmae.errors import UsageError
from dupmae.server import models
from dupmae.server.answers import SearchOptions, search_answers
from dupmae.server.batcher import Batcher
from dupmae.server.failures import RefusedError
from dupmae.server.indexes import ServedIndex, Watcher
from dupmae.server.metrics import Metrics
from dupmae.server.settings import ServerSettings
from dupmae.server.threads import BoundedThreads
from dupmae.server.waiting import outcome

Result = TypeVar("Result")

READERS = 2
"""Threads for what is neither search nor write: explanations, facets, documents."""
WAITING_WRITES = 16


class Service:
    """Indexes, and the threads that answer from them."""

    def __init__(self, indexes: Sequence[ServedIndex], settings: ServerSettings) -> None:
        self.indexes = {index.name: index for index in indexes}
        self.settings = settings
        self.metrics = Metrics()
        self.searches = Batcher[SearchOptions, models.Answer](
            self._answer, size=settings.batch, limit=settings.queue
        )
        self.metrics.watch(indexes, lambda: self.searches.waiting)
        self.writes = BoundedThreads("write", 1, WAITING_WRITES)
        self._readers = BoundedThreads("read", READERS, settings.queue)
        self._watcher = Watcher(indexes)

    def start(self) -> None:
        """Begin to answer, and to watch for new generations."""
        self.searches.start()
        self._watcher.start()

    def close(self) -> None:
        """Finish what was begun, and close the indexes."""
        self._watcher.close()
        self.searches.close()
        self._readers.close()
        self.writes.close()
        for index in self.indexes.values():
            index.close()

    def index(self, name: str | None) -> ServedIndex:
        """Return an index; the first one if no name is given."""
        if name is None:
            return next(iter(self.indexes.values()))
        if name not in self.indexes:
            known = ", ".join(self.indexes)
            raise RefusedError(
                404, "no_index", f"no index of that name is served; there are: {known}"
            )
        return self.indexes[name]

    async def read(self, request: Request, work: Callable[[], Result]) -> Result:
        """Return what work in a thread gives, within the time limit."""
        return await self.wait(request, self._readers.submit(work))

    async def wait(self, request: Request, future: Future[Result]) -> Result:
        """Return what a thread gives, within the time limit."""
        return await outcome(request, future, self.settings.time_limit)

    def check_query(self, query: str) -> str:
        """Return a query that may be asked."""
        most = self.settings.max_query_length
        if not query.strip():
            raise RefusedError(422, "bad_query", "the query is empty; give at least one word")
        if len(query) > most:
            message = f"a query may have {most:,} characters, found {len(query):,}"
            raise RefusedError(422, "bad_query", message)
        return query

    def check_page(self, k: int, offset: int = 0) -> None:
        """Refuse a page that is too large or too deep."""
        for name, value, most in (
            ("k", k, self.settings.max_k),
            ("offset", offset, self.settings.max_offset),
        ):
            if value > most:
                raise RefusedError(
                    422, "bad_value", f"{name} may be {most:,} at most, found {value:,}"
                )

    def check_rank(self, k: int) -> None:
        """Refuse a rank that no page reaches."""
        most = self.settings.max_offset + self.settings.max_k
        if k > most:
            raise RefusedError(422, "bad_value", f"k may be {most:,} at most, found {k:,}")

    def filter(self, where: str | None) -> Filter | None:
        """Read a filter; one of spaces is none."""
        most = self.settings.max_query_length
        if where is None or not where.strip():
            return None
        if len(where) > most:
            message = f"a filter may have {most:,} characters, found {len(where):,}"
            raise RefusedError(422, "bad_filter", message)
        try:
            return parse_filter(where)
        except UsageError as error:
            raise RefusedError(422, "bad_filter", str(error)) from None

    def keys(self, facets: Sequence[str]) -> tuple[Key, ...]:
        """Read the keys of facets."""
        try:
            return tuple(key for facet in facets for key in parse_keys(facet))
        except UsageError as error:
            raise RefusedError(422, "bad_facets", str(error)) from None

    def _answer(self, options: SearchOptions, queries: Sequence[str]) -> list[models.Answer]:
        self.metrics.batch.observe(len(queries))
        return search_answers(options, queries)


def milliseconds_since(started: float) -> float:
    """Return how long ago `time.perf_counter()` said `started`."""
    return 1000 * (time.perf_counter() - started)


async def _service(request: Request) -> Service:  # one that is not `async` goes through a thread
    found: Service = request.app.state.service
    return found


ServiceOf = Annotated[Service, Depends(_service)]
"""How a route names the service of its app."""
