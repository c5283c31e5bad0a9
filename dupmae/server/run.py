"""Running an app under uvicorn until it is told to stop."""

from __future__ import annotations

import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from dupmae.errors import ServerError
from dupmae.server.protocol import ImpatientProtocol
from dupmae.server.settings import ServerSettings

KEEP_ALIVE_SECONDS = 15
"""How long a connection may be idle between two requests."""


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach a server on a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes any that is free.

    Connections inherit that what is written is sent at once. Else the body of an answer would wait
    for the client's word that it has the head, which comes 40 ms later; asyncio sees to it only for
    sockets that were made with the protocol's number.

    Raises:
        ServerError: if it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise ServerError(f"cannot serve at {host}, port {port}: {error}") from error
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def run(app: ASGIApp, listening: socket.socket, settings: ServerSettings) -> None:
    """Answer requests until SIGTERM or ctrl-C; those in flight are answered before it returns."""

    class _Protocol(ImpatientProtocol):
        max_connections = settings.max_connections

    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,  # the command line has set up logging
        access_log=False,  # `observe.py` logs, without queries
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.time_limit) + 1,
    )
    with _quiet_end():
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def _quiet_end() -> Iterator[None]:
    """Let SIGTERM, which uvicorn raises once more when it has stopped, end in exit code 0."""
    before: Callable[..., object] | int | None = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
