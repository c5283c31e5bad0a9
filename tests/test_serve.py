"""`python cli.py serve` as its users run it: a process, real connections, a client, a signal."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result
from live_server import DOCUMENTS, running, tiny_index

from dupmae.cli import main
from dupmae.client import DupMAEClient
from dupmae.commands.extras import EXTRAS
from dupmae.errors import DataError, UsageError
from dupmae.server.run import listen
from dupmae.types import Document

Server = tuple[str, "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tiny_index(tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="module")
def server(folders: tuple[Path, Path]) -> Iterator[Server]:
    with running(*folders, "--writable", "--time-limit", "5") as server:
        yield server


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=60)


def test_answers_are_those_of_the_command_line_to_the_last_bit(
    server: Server, folders: tuple[Path, Path]
) -> None:
    model, index = folders
    client = DupMAEClient(server[0])
    place = ("--model", str(model), "--index", str(index), "--json")
    said = json.loads(run("search", "ba be", *place).stdout)
    answer = client.search("ba be")
    assert [(hit.rank, hit.doc_id, hit.score, hit.dense, hit.sparse) for hit in answer.hits] == [
        (hit["rank"], hit["id"], hit["score"], hit["dense"], hit["sparse"]) for hit in said["hits"]
    ]
    for name in ("query", "proven", "bound", "depth", "documents"):
        assert getattr(answer, name) == said[name]
    taken = client.explain("ba be", "sea")
    explained = json.loads(run("explain", "ba be", "sea", *place).stdout)
    assert {key: taken[key] for key in explained} == explained
    assert set(taken) - set(explained) == {"bound", "depth", "passage"}
    assert taken["passage"] is None
    connection = http.client.HTTPConnection(urlsplit(server[0]).netloc)
    connection.request("GET", "/info")
    info = json.load(connection.getresponse())
    connection.close()
    assert info == json.loads(run("info", "--index", str(index), "--json").stdout)


def test_the_client_does_what_the_server_can(server: Server) -> None:
    client = DupMAEClient(server[0])
    many = client.search_many(["ba", "ke"] * 40, k=1, where="year > 2018", facets=["year"])
    assert [answer.query for answer in many] == ["ba", "ke"] * 40
    assert many[1].hits[0].doc_id == "sky"
    assert len(many[0].facets["year"]) == 3
    assert client.get("sky") == DOCUMENTS[1]
    assert client.index([Document("new/1", "ka ba", "ke", {"a": [1]})]) == 4
    assert client.get("new/1") == Document("new/1", "ka ba", "ke", {"a": [1]})
    assert client.delete(["new/1"]) == 1
    assert client.delete(where="year = 1900") == 0
    with pytest.raises(DataError, match="no document"):
        client.get("new/1")
    with pytest.raises(UsageError, match="expected"):
        client.search("ba", where="year >")


@pytest.mark.slow
def test_slow_silent_and_broken_connections_do_no_harm(server: Server) -> None:
    url = server[0]
    client = DupMAEClient(url)
    silent = [connect(url) for _ in range(20)]
    slow = [connect(url) for _ in range(20)]
    for each in slow:
        each.sendall(b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le")
    for _ in range(20):  # gone with a request half sent, or sent and not waited for
        with connect(url) as killed:
            killed.sendall(
                b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{"
            )
    body = json.dumps({"query": "ba"}).encode()
    head = b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    for _ in range(20):
        with connect(url) as killed:
            killed.sendall(head + body)
    with connect(url) as garbage:
        garbage.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert b" 400 " in garbage.recv(1000)
    assert client.search("ba").proven
    with connect(url) as trickle:
        trickle.sendall(head)  # and no body: given up after the time limit
        assert b" 408 " in trickle.recv(1000)
    for each in silent + slow:  # closed by the server, which waits ten seconds for a head
        assert each.recv(1000) == b""
        each.close()
    assert client.search("ba").proven


@pytest.mark.slow
def test_a_signal_ends_it_when_all_requests_in_flight_are_answered(
    folders: tuple[Path, Path],
) -> None:
    with running(*folders) as (url, process), ThreadPoolExecutor(4) as pool:
        client = DupMAEClient(url)
        client.search("ba")
        with connect(url) as begun:
            body = json.dumps({"query": "ke", "k": 1}).encode()
            begun.sendall(
                b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            assert b" 100 " in begun.recv(1000)  # its head was read: the request is in flight
            asked = [pool.submit(client.search_many, ["ba be"] * 20) for _ in range(3)]
            for each in asked:
                each.result()
            process.send_signal(signal.SIGTERM)
            begun.sendall(body)
            answer = b""
            while part := begun.recv(4096):
                answer += part
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b'"id":"sky"' in answer
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_it_says_in_one_line_why_it_does_not_start(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, index = folders

    def refused(code: int, words: str, *options: str) -> None:
        result = run("serve", *options)
        assert result.exit_code == code, result.output
        (line,) = result.stderr.splitlines()
        assert words in line

    refused(3, "no index at", "--index", str(tmp_path / "no"))
    refused(2, "two indexes are called demo", "--index", str(index), "--index", f"demo={index}")
    refused(2, "NAME=FOLDER", "--index", "demo=")
    refused(4, "was built by encoder tiny", "--index", str(index), "--port", "0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused(1, f"port {port}", "--index", str(index), "--model", str(model), "--port", port)
    monkeypatch.setitem(EXTRAS, "serve", (("a_package_that_is_not_there",), "serve"))
    refused(2, "pip install 'dupmae[serve]'")


def test_an_answer_does_not_wait_for_the_client_to_say_that_it_has_the_head() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
