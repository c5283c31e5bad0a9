"""Who may ask: the names that the server answers to, the pages that may send, and API keys.

A page of another site can make a browser send requests to 127.0.0.1, either under a name of its own
that it lets point there (DNS rebinding), which the Host header gives away, or as they are, which
the Origin header does.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dupmae.server.failures import RefusedError, refused
from dupmae.server.keys import ApiKeys
from dupmae.server.settings import ServerSettings

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")

_OPEN_PATHS = frozenset({"/", "/health", "/ready", "/openapi.json"})
_OPEN_FOLDER = "/assets/"
"""What is the same for all, and holds nothing of an index."""
_READ_METHODS = frozenset({"GET", "HEAD"})
_WRITE_POSTS = frozenset({"/documents", "/delete"})


class Guard:
    """Lets a request through to an app if its host, origin and key may."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, keys: ApiKeys) -> None:
        self._app = app
        self._settings = settings
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            try:
                self._check(scope["method"], scope["path"], Headers(scope=scope))
            except RefusedError as refusal:
                await refused(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._settings.hosts and _name(host) not in self._settings.hosts:
            message = "the server does not answer to the name in the Host header; see --allow-host"
            raise RefusedError(421, "bad_host", message)
        origin = headers.get("origin")
        if origin is not None and method not in _READ_METHODS:
            own = urlsplit(origin).netloc == host and bool(host)
            if not own and origin not in self._settings.cors:
                message = "pages of other sites may not send this; see --cors"
                raise RefusedError(403, "bad_origin", message)
        is_open = path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER)
        if self._keys and not (is_open and method in _READ_METHODS):
            self._check_key(_needed(method, path), headers.get("authorization", ""))

    def _check_key(self, needed: str, authorization: str) -> None:
        kind, _, key = authorization.partition(" ")
        allowed = self._keys.scopes(key.strip()) if kind.lower() == "bearer" else frozenset()
        if not allowed:
            refusal = RefusedError(401, "no_key", "send a valid key: Authorization: Bearer KEY")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            raise refusal
        if needed not in allowed:
            raise RefusedError(
                403, "read_only_key", "this key may read only; send one that may write"
            )


def _needed(method: str, path: str) -> str:
    """Return the scope that a request needs."""
    if method in _READ_METHODS or (method == "POST" and path not in _WRITE_POSTS):
        return "read"
    return "write"


def _name(host: str) -> str:
    """Return the name of a Host header, without a port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
