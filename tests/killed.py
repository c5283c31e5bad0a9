"""Processes that are killed in the middle of what they do to an index folder.

Each is forked from one process that has imported what they need and done nothing with it.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from dupmae.engine.lock import writer_lock

IMPORTED = ["dupmae.engine", "dupmae.engine.fast", "hypothesis", "pytest"]


def exit_code(function: Callable[..., Any], *arguments: Any, **options: Any) -> int | None:
    """Return how a process ends that calls a function: minus the signal that killed it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_call, args=(function, arguments, options))
    process.start()
    process.join()
    code = process.exitcode
    process.close()
    return code


def _call(
    function: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any]
) -> None:
    # Locks that it makes then have no name, which would be left behind by its death.
    multiprocessing.set_start_method("fork", force=True)
    function(*arguments, **options)


def die(*_: object, **__: object) -> NoReturn:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def dying_at(
    step: str, function: Callable[..., Any], *arguments: Any, nth: int = 1, after: bool = False,
    **options: Any,
) -> None:  # fmt: skip
    """Call a function, and die in the n-th call of a step of it, or right after that call."""
    real = pkgutil.resolve_name(step)
    calls = 0

    def counted(*args: Any, **given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and not after:
            die()
        result = real(*args, **given)
        if calls == nth:
            die()
        return result

    with mock.patch(step, counted):
        function(*arguments, **options)


def hold_lock(folder: Path) -> None:
    """Die as the writer of an index."""
    with writer_lock(folder):
        die()
