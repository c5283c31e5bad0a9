"""Ctrl-C that is not lost: it waits for an import under way to end.

Python drops what is raised in the callbacks of its import system, and may keep that system's locks,
so that a program then waits for ever: a build that was interrupted at each of its first 9,700 calls
did so at 75. It also drops what is raised in a generator that is being closed, which `typing` does
to check a protocol. (In a lock of `threading` it may be lost as well, for a microsecond.)
"""

from __future__ import annotations

import signal
import threading
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_PATIENCE = 0.02
"""Seconds until it is looked again whether the import has ended."""
_FRAGILE = {
    "<frozen importlib._bootstrap>",
    "<frozen importlib._bootstrap_external>",
    typing.__file__,
}
"""Files of code that may lose what is raised in it or in what it calls."""


@contextmanager
def careful_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT in the block, but only once no import is under way.

    A second SIGINT does not wait. Where SIGINT is ignored or handled otherwise, where there are no
    timers (Windows) and in other threads than the first, all stays as it is.
    """
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    first = threading.current_thread() is threading.main_thread()
    if not (usual and first and hasattr(signal, "setitimer")):
        yield
        return
    waiting = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal waiting
        pressed_again = waiting and number == signal.SIGINT
        waiting = _is_fragile(frame) and not pressed_again
        if not waiting:
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE)

    before = signal.signal(signal.SIGALRM, handle)
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _is_fragile(frame: FrameType | None) -> bool:
    """Return whether a frame, or one that it was called from, may lose what is raised."""
    while frame is not None and frame.f_code.co_filename not in _FRAGILE:
        frame = frame.f_back
    return frame is not None
