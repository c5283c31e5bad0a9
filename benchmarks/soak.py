"""All that a server meets at once, for minutes: searches, writes, reloads and bad clients.

It serves a copy of the index. Eight clients search, and look whether each answer is whole, proven
and of no older generation than the one before. One writer indexes documents over HTTP and deletes
them from another process, which the server must take up. Meanwhile clients die with a request in
flight, and others stall: they say nothing, half a head, half a body, or do not read their answers.
"""

from __future__ import annotations

import http.client
import itertools
import json
import math
import random
import select
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from served import Served, percentiles, serving

from dupmae.engine import delete_documents, read_manifest

CLIENTS = 8
HITS = 10
STALLED = 16
"""Connections of stalled clients at a time."""
SAMPLES = 20
"""How often memory is looked at."""
PAUSE = 1.0
"""Seconds between two rounds of writing."""
RELOADED = 5.0
"""Seconds within which the server must see what another process wrote; it looks twice a second."""
SETTLED = 10.0
"""Seconds within which connections must be gone when their clients are."""
_JSON = {"Content-Type": "application/json"}
_STALLS = (
    b"",
    b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: 99\r\n\r\n{",
    b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200,
)


class _Soak:
    """What all threads share: the server, when to stop, and what has happened."""

    def __init__(self, served: Served, folder: Path, queries: Sequence[str]) -> None:
        self.served = served
        self.folder = folder
        self.bodies = [json.dumps({"query": query}).encode() for query in queries]
        self.end = math.inf
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.seconds: list[float] = []
        self._lock = threading.Lock()

    def goes_on(self) -> bool:
        return time.monotonic() < self.end

    def count(self, what: str, *, error: bool = False) -> None:
        with self._lock:
            (self.errors if error else self.counts)[what] += 1

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.served.port, timeout=60)

    def ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b""
    ) -> dict[str, Any] | None:
        """Return what is answered; None, and an error, if it is not 200."""
        try:
            connection.request(method, path, body or None, _JSON)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.count(f"{method} {path}: {type(error).__name__}", error=True)
            return None
        if response.status != 200:
            self.count(f"{method} {path}: {response.status}", error=True)
            return None
        found: dict[str, Any] = json.loads(content)
        return found


def soak(index: Path, model: str | None, queries: Sequence[str], seconds: float) -> dict[str, Any]:
    """Let all of them work for some seconds, and return what came of it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(index, Path(place) / "soak.index"))
        with serving(folder, model, "--writable") as served:
            state = _Soak(served, folder, queries)
            _write_once(state, state.connect(), "before")  # so that all threads have begun
            state.end = time.monotonic() + seconds
            before = (served.threads(), served.open_files())
            memory = _run(state, seconds)
            after = (served.threads(), _settle(served, before[1]))
    return {
        "searches_per_second": round(len(state.seconds) / seconds, 1),
        **percentiles(state.seconds),
        "errors": dict(state.errors),
        **{name: state.counts[name] for name in ("writes", "reloads", "killed", "stalled")},
        "stalled_closed_by_server": state.counts["closed"],
        "resident_mib": memory,
        "threads": [before[0], after[0]],
        "open_files": [before[1], after[1]],
    }


def _run(state: _Soak, seconds: float) -> list[float]:
    """Run all threads to their end; return the server's memory from time to time."""
    threads = [threading.Thread(target=_search, args=(state, number)) for number in range(CLIENTS)]
    threads += [threading.Thread(target=work, args=(state,)) for work in (_write, _kill, _stall)]
    for thread in threads:
        thread.start()
    memory = []
    while state.goes_on():
        memory.append(state.served.resident_mib())
        time.sleep(seconds / SAMPLES)
    for thread in threads:
        thread.join()
    return memory


def _search(state: _Soak, number: int) -> None:
    start = len(state.bodies) * number // CLIENTS
    connection, generation = state.connect(), 0
    for body in itertools.cycle(state.bodies[start:] + state.bodies[:start]):
        if not state.goes_on():
            break
        started = time.perf_counter()
        answer = state.ask(connection, "POST", "/search", body)
        state.seconds.append(time.perf_counter() - started)
        if answer is None:
            continue
        whole = len(answer["hits"]) == min(HITS, answer["documents"]) and answer["proven"]
        if not whole or answer["generation"] < generation:
            state.count("an answer that is not whole, not proven or too old", error=True)
        generation = answer["generation"]
    connection.close()


def _write(state: _Soak) -> None:
    connection = state.connect()
    for number in itertools.count():
        if not state.goes_on():
            break
        _write_once(state, connection, str(number))
        time.sleep(PAUSE)
    connection.close()


def _write_once(state: _Soak, connection: http.client.HTTPConnection, name: str) -> None:
    """Index documents, delete them from this process, and wait until the server knows."""
    ids = [f"soak {name} {each}" for each in range(3)]
    documents = [{"_id": doc_id, "text": f"a document of the soak, {doc_id}"} for doc_id in ids]
    body = json.dumps({"documents": documents}).encode()
    if state.ask(connection, "POST", "/documents", body) is None:
        return
    state.count("writes")
    delete_documents(state.folder, ids)
    written, waited = read_manifest(state.folder).generation, time.monotonic() + RELOADED
    while (state.ask(connection, "GET", "/info") or {}).get("generation") != written:
        if time.monotonic() > waited:
            state.count("what another process wrote was not taken up", error=True)
            return
        time.sleep(0.1)
    state.count("reloads")


def _kill(state: _Soak) -> None:
    """Send requests and go, with a reset instead of a farewell."""
    chance = random.Random(1)
    for body in itertools.cycle(state.bodies):
        if not state.goes_on():
            break
        with socket.create_connection(("127.0.0.1", state.served.port)) as client:
            head = "POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(chance.uniform(0, 0.2))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        state.count("killed")


def _stall(state: _Soak) -> None:
    """Keep connections that never come to an end, and open another for each that is closed."""
    clients: list[socket.socket] = []
    kinds = itertools.cycle(_STALLS)
    while state.goes_on():
        while len(clients) < STALLED:
            client = socket.create_connection(("127.0.0.1", state.served.port))
            client.setblocking(False)
            clients.append(client)
            state.count("stalled")
            start = next(kinds)
            if start:
                client.send(start)
        open_ones = [client for client in clients if not _is_closed(client)]
        for client in set(clients) - set(open_ones):
            client.close()
            state.count("closed")
        clients = open_ones
        time.sleep(0.5)
    for client in clients:
        client.close()


def _is_closed(client: socket.socket) -> bool:
    """Say whether the server has closed a connection; what it answered stays unread."""
    seen = select.poll()
    seen.register(client, select.POLLRDHUP)
    return bool(seen.poll(0))


def _settle(served: Served, files: int) -> int:
    """Wait until the server holds no more files open than before, and return how many it does."""
    waited = time.monotonic() + SETTLED
    while served.open_files() > files and time.monotonic() < waited:
        time.sleep(0.1)
    return served.open_files()
