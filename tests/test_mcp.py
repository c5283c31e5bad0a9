"""The MCP server, asked by the SDK's own client: in this process, over stdio and over HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
from click.testing import CliRunner
from fakes import FakeEncoder
from terminal import WITH_FAKE_ENCODER

from dupmae.cli import main
from dupmae.engine import SearchEngine, build_index, explain
from dupmae.types import Document

mcp = pytest.importorskip("mcp", reason="the extra [mcp] is not installed")

DOCUMENTS = [
    Document("whale", "the whale and the sea " * 100, "Moby", {"year": 1851}),
    Document("ship", "the ship and the sea", "", {"year": 1900}),
    Document("storm", "a storm at sea", "", {"year": 1900}),
]
COMMAND = [sys.executable, "-c", WITH_FAKE_ENCODER, str(Path(__file__).parent), "mcp"]
JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

Answer = TypeVar("Answer")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_index(DOCUMENTS, FakeEncoder(), tmp_path / "dupmae.index")
    return tmp_path


@pytest.fixture
def engine(folder: Path) -> Iterator[SearchEngine]:
    with SearchEngine.open(folder / "dupmae.index", FakeEncoder()) as engine:
        yield engine


def ask(server: Any, do: Callable[[Any], Awaitable[Answer]]) -> Answer:
    """Connect the SDK's client to a server and return what `do` makes of it."""

    async def connected() -> Answer:
        async with mcp.Client(server) as client:
            return await do(client)

    return anyio.run(connected)


def call(engine: SearchEngine, tool: str, **arguments: object) -> Any:
    from dupmae.integrations.mcp_server import make_server

    return ask(make_server(engine), lambda client: client.call_tool(tool, arguments))


def error(result: Any) -> str:
    assert result.is_error
    (said,) = result.content
    return str(said.text)


def test_the_tools_say_what_they_take_and_give(engine: SearchEngine) -> None:
    from dupmae.integrations.mcp_server import make_server

    tools = {
        tool.name: tool
        for tool in ask(make_server(engine), lambda client: client.list_tools()).tools
    }
    assert set(tools) == {"search", "get_document", "explain"}
    for tool in tools.values():
        assert tool.description
        assert tool.annotations.read_only_hint
        assert tool.output_schema["properties"]
    k = tools["search"].input_schema["properties"]["k"]
    assert (k["minimum"], k["maximum"], k["default"]) == (1, 100, 10)
    assert tools["search"].input_schema["required"] == ["query"]


def test_search_gives_the_engines_answer_with_its_proof(engine: SearchEngine) -> None:
    answer = call(engine, "search", query="storm sea", k=2).structured_content
    expected = engine.search("storm sea", 2)
    assert [(hit["id"], hit["score"]) for hit in answer["hits"]] == [
        (hit.doc_id, hit.score) for hit in expected.hits
    ]
    assert answer["proven"] is True
    assert answer["proof"].startswith("proven: none of the other 1 documents")
    last = call(engine, "search", query="storm", offset=2, where="year exists").structured_content
    assert [hit["rank"] for hit in last["hits"]] == [3]
    assert last["proof"] == "proven: all 3 documents that match were ranked"


def test_a_long_document_is_read_in_parts(engine: SearchEngine) -> None:
    text, start = "", 0
    while start is not None:
        part = call(engine, "get_document", id="whale", start=start, length=999).structured_content
        text, start = text + part["text"], part["next_start"]
    assert text == DOCUMENTS[0].text
    assert (part["characters"], part["metadata"]) == (len(text), {"year": 1851})


def test_explain_adds_up(engine: SearchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = explain(engine, "the whale sea", "whale")
    for most, more in ((50, 0), (1, 2)):
        monkeypatch.setattr("dupmae.integrations.mcp_server.MOST_TERMS", most)
        answer = call(engine, "explain", query="the whale sea", id="whale").structured_content
        assert (answer["rank"], answer["score"]) == (taken.rank, taken.score)
        products = sum(term["product"] for term in answer["terms"]) + answer["more_terms_sum"]
        assert products == pytest.approx(answer["sparse"], rel=1e-12)
        assert answer["more_terms"] == more


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("search", {"query": "sea", "where": "year ~ 2"}, "character 6"),
        ("search", {"query": "sea", "k": 101}, "100"),
        ("search", {"query": "sea", "k": 0}, "1"),
        ("search", {"query": ""}, "1"),
        ("search", {"query": "x" * 10_001}, "10000"),
        ("search", {}, "query"),
        ("get_document", {"id": "moon"}, "no document of the index has the id 'moon'"),
        ("get_document", {"id": "whale", "length": 20_001}, "20000"),
        ("explain", {"query": "sea", "id": "moon"}, "'moon'"),
        ("explain", {"query": "a", "id": "ship", "where": "year = 1"}, "does not match"),
    ],
)
def test_what_is_wrong_is_said_to_the_agent(
    engine: SearchEngine, tool: str, arguments: dict[str, object], said: str
) -> None:
    assert said in error(call(engine, tool, **arguments))


def test_a_search_is_answered_from_the_index_as_it_is_now(
    engine: SearchEngine, folder: Path
) -> None:
    build_index([Document("new", "whale")], FakeEncoder(), folder / "dupmae.index")
    assert call(engine, "search", query="whale").structured_content["documents"] == 4


def test_over_stdio(folder: Path) -> None:
    server = mcp.StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], cwd=str(folder))
    answer = ask(server, lambda client: client.call_tool("search", {"query": "storm", "k": 1}))
    assert [hit["id"] for hit in answer.structured_content["hits"]] == ["storm"]


@pytest.mark.slow
def test_over_http_on_the_loopback_alone(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*COMMAND, "--http", "--port", str(port)], cwd=folder)
    try:
        while True:
            assert process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        url = f"http://127.0.0.1:{port}/mcp"
        answer = ask(url, lambda client: client.call_tool("search", {"query": "storm", "k": 1}))
        assert [hit["id"] for hit in answer.structured_content["hits"]] == ["storm"]
        foreign = urllib.request.Request(url, b"{}", {"Host": "evil.example", **JSON})
        with pytest.raises(urllib.error.HTTPError) as refused:  # a page that rebinds its name
            urllib.request.urlopen(foreign)
        assert refused.value.code == 421
        refused.value.close()
        held = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
        assert f"0100007F:{port:04X}" in held
        assert f"00000000:{port:04X}" not in held
    finally:
        process.terminate()
        process.wait()


def test_without_the_extra_the_command_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    result = CliRunner().invoke(main, ["mcp", "--index", str(folder / "dupmae.index")])
    assert result.exit_code == 2
    assert "pip install 'dupmae[mcp]'" in result.stderr
    assert "--http" in CliRunner().invoke(main, ["mcp", "--port", "80"]).stderr
