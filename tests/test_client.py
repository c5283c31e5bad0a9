"""The Python client, against answers that a server of ours gives seldom or never."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from dupmae import client as module
from dupmae.client import DupMAEClient
from dupmae.errors import (
    AccessError,
    DataError,
    DupMAEError,
    ServerBusyError,
    ServerError,
    UsageError,
    WriterBusyError,
)

FOUND = {"id": "a", "text": "b", "title": "", "metadata": {}}
Reply = tuple[int, dict[str, str], bytes]


def refusal(status: int, **headers: str) -> Reply:
    body = json.dumps({"error": {"code": "x", "message": "why not"}}).encode()
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body


@contextmanager
def replying(*replies: Reply) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Serve replies in order; gives the URL, and path and key of each request."""
    waiting, asked = list(replies), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            status, headers, body = waiting.pop(0)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AccessError), (403, AccessError), (404, DataError), (409, WriterBusyError),
        (422, UsageError), (504, ServerBusyError), (500, ServerError), (413, ServerError),
    ],
)  # fmt: skip
def test_an_error_of_the_server_is_one_of_ours_with_its_line(
    status: int, kind: type[DupMAEError]
) -> None:
    with replying(refusal(status)) as (url, asked), pytest.raises(kind, match=r"^why not$") as got:
        DupMAEClient(url).get("a")
    assert type(got.value) is kind
    assert len(asked) == 1


def test_a_busy_server_is_asked_again_when_it_says_so(pauses: list[float]) -> None:
    ok = (200, {}, json.dumps(FOUND).encode())
    replies = [refusal(503, Retry_After="2"), refusal(429, Retry_After="999"), refusal(503), ok]
    with replying(*replies) as (url, asked):
        assert DupMAEClient(url, key="k", index="i j").get("a/b").doc_id == "a"
    assert pauses == [2.0, module.LONGEST_WAIT, 1.0]
    assert asked == [("/documents/a%2Fb?index=i+j", "Bearer k")] * 4


def test_it_gives_up_after_so_many_times(pauses: list[float]) -> None:
    with replying(*[refusal(503)] * 2) as (url, asked), pytest.raises(ServerBusyError):
        DupMAEClient(url, retries=1).get("a")
    assert (len(pauses), len(asked)) == (1, 2)


def test_a_redirect_is_not_followed_for_it_could_take_the_key_along() -> None:
    with replying() as (elsewhere, stolen):
        moved = (307, {"Location": elsewhere}, b"")
        with replying(moved) as (url, _), pytest.raises(ServerError, match="HTTP status 307"):
            DupMAEClient(url, key="k").get("a")
    assert stolen == []


def test_what_is_no_answer_of_a_server_of_ours_is_one_line() -> None:
    with replying((200, {}, b"<html>"), (500, {}, b"<html>")) as (url, _):
        for words in ("no answer from", "HTTP status 500"):
            with pytest.raises(ServerError, match=words):
                DupMAEClient(url).get("a")
    with pytest.raises(ServerError, match="no answer from"):
        DupMAEClient(url).get("a")  # nobody listens there any more
    with pytest.raises(UsageError, match="expected a URL"):
        DupMAEClient("file:///etc/passwd")
