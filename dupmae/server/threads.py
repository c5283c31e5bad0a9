"""Work beside searches, in a few threads and never with more waiting than is allowed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from dupmae.server.failures import busy

Result = TypeVar("Result")


class BoundedThreads:
    """Threads that refuse work when too much waits."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"dupmae-{name}")
        self._room = threading.BoundedSemaphore(threads + waiting)

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Queue work.

        Raises:
            RefusedError: if too much waits.
        """
        if not self._room.acquire(blocking=False):
            raise busy()
        try:
            future = self._pool.submit(work)
        except RuntimeError:  # the pool has ended
            self._room.release()
            raise busy() from None
        future.add_done_callback(lambda _: self._room.release())
        return future

    def close(self) -> None:
        """Finish what was begun and what waits."""
        self._pool.shutdown()
