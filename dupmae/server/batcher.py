"""Searches that wait are answered together: one thread takes whatever is alike from one queue.

Nothing waits for company. While the thread is at work requests gather, and the oldest of them is
answered next with all those of the same options; so batches grow with the load and by nothing else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dupmae.server.failures import busy

Options = TypeVar("Options", bound=Hashable)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class _Job(Generic[Options, Result]):
    """Queries of one request, which wait."""

    options: Options
    queries: Sequence[str]
    future: Future[Sequence[Result]] = field(default_factory=Future)


class Batcher(Generic[Options, Result]):
    """Answers queries in batches of one set of options each.

    Args:
        answer: returns a result for each query; called in one thread only.
        size: queries of a batch, but for a request that alone has more.
        limit: queries that may wait.
    """

    def __init__(
        self,
        answer: Callable[[Options, Sequence[str]], Sequence[Result]],
        *,
        size: int,
        limit: int,
    ) -> None:
        self._answer = answer
        self._size = size
        self._limit = limit
        self._jobs: deque[_Job[Options, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="dupmae-search", daemon=True)

    @property
    def waiting(self) -> int:
        """How many queries wait."""
        with self._changed:
            return self._count()

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def submit(self, options: Options, queries: Sequence[str]) -> Future[Sequence[Result]]:
        """Queue queries; a future that is cancelled in time costs nothing.

        Raises:
            RefusedError: if too many wait, or the server ends.
        """
        job: _Job[Options, Result] = _Job(options, queries)
        with self._changed:
            waiting = self._count()
            if self._closed or (waiting and waiting + len(queries) > self._limit):
                raise busy()
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Answer what waits, then end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _count(self) -> int:
        return sum(len(job.queries) for job in self._jobs if not job.future.cancelled())

    def _work(self) -> None:
        while batch := self._take():
            queries = [query for job in batch for query in job.queries]
            try:
                results = self._answer(batch[0].options, queries)
            except Exception as error:
                for job in batch:
                    job.future.set_exception(error)
                continue
            start = 0
            for job in batch:
                job.future.set_result(results[start : start + len(job.queries)])
                start += len(job.queries)

    def _take(self) -> list[_Job[Options, Result]]:
        """Wait for jobs and return the oldest and those like it; none if the end has come."""
        with self._changed:
            while True:
                batch: list[_Job[Options, Result]] = []
                left: deque[_Job[Options, Result]] = deque()
                room = self._size
                for job in self._jobs:
                    fits = not batch or (
                        job.options == batch[0].options and len(job.queries) <= room
                    )
                    if not fits:
                        left.append(job)
                    elif job.future.set_running_or_notify_cancel():
                        batch.append(job)
                        room -= len(job.queries)
                self._jobs = left
                if batch or self._closed:
                    return batch
                self._changed.wait()
