"""Reading ahead: the next block is read and prepared while the last one is encoded and written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any, TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")

_PATIENCE = 1.0
"""Seconds to wait for the reading thread when the build ends early; it may wait for a pipe."""


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


def read_ahead(
    items: Iterable[Item], prepare: Callable[[Item], Prepared]
) -> Generator[tuple[Item, Prepared], None, None]:
    """Yield each item with what `prepare` makes of it, done in a thread of its own.

    At most two items are ready or being made beside the one that was yielded last. What is raised
    in the thread, by `items` or by `prepare`, is raised here. Close the generator to stop early.
    """
    ready: Queue[Any] = Queue(maxsize=1)
    stopped = threading.Event()

    def work() -> None:
        error = None
        try:
            for item in items:
                prepared = prepare(item)
                if stopped.is_set():
                    return
                ready.put((item, prepared))
        except BaseException as raised:
            error = raised
        if not stopped.is_set():
            ready.put(_End(error))

    # A daemon, since a thread that waits for a pipe cannot be told to end.
    thread = threading.Thread(target=work, name="dupmae-read-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(got := ready.get(), _End):
            yield got
        if got.error is not None:
            raise got.error
    finally:
        stopped.set()
        with suppress(Empty):
            ready.get_nowait()  # so that a thread which waits to hand over can end
        thread.join(_PATIENCE)
