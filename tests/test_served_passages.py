"""Of an index of split documents all ways to ask name the same passages: commands, HTTP, agents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner
from live_server import running, tiny_index

from dupmae.cli import main
from dupmae.client import DupMAEClient
from dupmae.commands.options import load_encoder, open_engine
from dupmae.engine import Chunk
from dupmae.types import Document, Passage

TEXTS = {
    "late": "ka ke ki ko ra re. " * 8 + "Ba be bi, bo ba 🐋 be. " + "ro ru ry sa se si. " * 8,
    "early": "ba be bi sa se si. " + "ku ky la le li lo. " * 9,
    "short": "da ba be",
}
DOCUMENTS = [Document(doc_id, text.strip(), "da") for doc_id, text in TEXTS.items()]
QUERY = "ba be bi"

Place = tuple[Path, Path]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return tiny_index(tmp_path_factory.mktemp("split"), DOCUMENTS, Chunk(14, 3))


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    with running(*place) as (url, _):
        yield url


def said(place: Place, *arguments: str) -> dict[str, Any]:
    """Return what a command says in JSON."""
    model = () if arguments[0] == "info" else ("--model", str(place[0]))
    result = CliRunner().invoke(main, [*arguments, "--json", *model, "--index", str(place[1])])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def asked(url: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what the server answers."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url + path, data, {"Content-Type": "application/json"})) as response:
        found: dict[str, Any] = json.load(response)
    return found


@pytest.mark.slow
def test_search_answers_the_same_hits_with_their_passages(place: Place, url: str) -> None:
    told = said(place, "search", QUERY)["hits"]
    served = asked(url, "/search", {"query": QUERY, "texts": True})["hits"]
    assert {hit["id"]: hit["passage"]["number"] for hit in told}["late"] > 1
    for hit, other in zip(served, told, strict=True):
        assert hit == other
        passage = hit["passage"]
        assert passage["text"] == hit["text"][passage["start"] : passage["end"]]
    found = DupMAEClient(url).search(QUERY).hits
    for typed, hit in zip(found, told, strict=True):
        number, start, end, text = (
            hit["passage"][key] for key in ("number", "start", "end", "text")
        )
        assert (typed.passage, typed.passage_text) == (Passage(number, start, end), text)


@pytest.mark.parametrize("doc_id", sorted(TEXTS))
def test_explain_takes_the_same_passage_apart_also_behind_the_first_k(
    place: Place, url: str, doc_id: str
) -> None:
    told = said(place, "explain", QUERY, doc_id, "-k", "1")
    served = asked(url, "/explain", {"query": QUERY, "id": doc_id, "k": 1})
    assert {key: served[key] for key in told} == told
    hits = {hit["id"]: hit for hit in said(place, "search", QUERY)["hits"]}
    assert served["passage"] == hits[doc_id]["passage"]
    assert served["snippet"] == hits[doc_id]["snippet"]


def test_info_says_how_documents_are_split(place: Place, url: str) -> None:
    info = asked(url, "/info")
    assert info == said(place, "info")
    assert info["chunk"] == {"tokens": 14, "overlap": 3}
    assert info["passages"] == sum(segment["passages"] for segment in info["segments"]) > 3


def test_an_agent_is_given_the_same_passages_and_can_read_them(place: Place) -> None:
    reason = "the extra [mcp] is not installed"
    pytest.importorskip("mcp", reason=reason)
    from dupmae.integrations.mcp_server import Tools

    model, index = place
    weights = {"dense_weight": None, "sparse_weight": None, "feedback": None}
    told = said(place, "search", QUERY)["hits"]
    with open_engine(index, load_encoder(str(model)), **weights) as engine:
        tools = Tools(engine)
        for hit, other in zip(tools.search(QUERY).hits, told, strict=True):
            passage = other["passage"]
            text = passage.pop("text")
            assert hit.passage is not None
            assert hit.passage.model_dump() == passage
            assert (hit.id, hit.score, hit.snippet) == (
                other["id"], other["score"], other["snippet"]["text"],
            )  # fmt: skip
            assert tools.explain(QUERY, hit.id).passage == hit.passage
            length = passage["end"] - passage["start"]
            assert tools.get_document(hit.id, passage["start"], length).text == text
