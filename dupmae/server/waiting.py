"""Waiting for a thread's result, but no longer than allowed, and only while the client waits."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from typing import TypeVar

from fastapi import Request

from dupmae.server.failures import RefusedError

Result = TypeVar("Result")

LOOK_SECONDS = 0.2
"""How often it is looked whether the client is still there."""


async def outcome(request: Request, future: Future[Result], seconds: float) -> Result:
    """Return a future's result; it is cancelled, if not begun, when nobody waits for it any more.

    Raises:
        RefusedError: if it took too long, or the client has gone.
    """
    waiting = asyncio.wrap_future(future)
    end = time.monotonic() + seconds
    try:
        while not waiting.done():
            left = end - time.monotonic()
            if left <= 0:
                message = f"no answer within {seconds:g} s; ask for less, or try again later"
                raise RefusedError(504, "too_slow", message)
            await asyncio.wait({waiting}, timeout=min(left, LOOK_SECONDS))
            if not waiting.done() and await request.is_disconnected():
                raise RefusedError(499, "gone", "the client has gone")
        return waiting.result()
    finally:
        waiting.cancel()
