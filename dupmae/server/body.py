"""A request's body, read whole before anything is done with it: not too long, not too slowly."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dupmae.server.failures import RefusedError, refused
from dupmae.server.settings import ServerSettings


class LimitedBody:
    """Hands requests on to an app with their whole body."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_write = (scope["method"], scope["path"]) == ("POST", "/documents")
        limit = self._settings.max_documents_body if is_write else self._settings.max_body
        try:
            async with asyncio.timeout(self._settings.time_limit):
                body = await _read(scope, receive, limit)
        except TimeoutError:
            refusal = RefusedError(408, "slow_body", "the body of the request came too slowly")
        except RefusedError as found:
            refusal = found
        except ClientDisconnect:
            return
        else:
            await self._app(scope, _replay(body, receive), send)
            return
        # What is left of the body is not read, so the connection cannot be used again.
        refusal.headers["Connection"] = "close"
        await refused(refusal)(scope, receive, send)


async def _read(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Read a body of at most `limit` bytes; one that says that it is longer is not begun."""
    too_long = RefusedError(413, "too_long", f"the body of a request may have {limit:,} bytes")
    announced = Headers(scope=scope).get("content-length", "0")
    if not announced.isdecimal() or int(announced[:20]) > limit:
        raise too_long
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise too_long
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return what gives the body as one message, then what comes after it."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again
