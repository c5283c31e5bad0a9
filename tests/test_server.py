"""The routes that read: what they answer is what the engine says, and hostile input is one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import DOCUMENTS, WordEncoder, problem, serving, write_index
from starlette.testclient import TestClient

from dupmae.engine import SearchEngine, build_index, explain
from dupmae.types import CorpusStatistics, Document

QUERY = "vitamin d in bones"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("served") / "demo")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[SearchEngine]:
    with SearchEngine.open(folder, WordEncoder(), feedback=0.3) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with serving(folder) as client:
        yield client


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 2, "offset": 1},
        {"where": "year >= 2020 or kind = 'note'"},
        {"dense_weight": 0.0, "sparse_weight": 2.5},
        {"feedback": 0.0},
    ],
)
def test_answers_are_those_of_the_engine_to_the_last_bit(
    client: TestClient, engine: SearchEngine, options: dict[str, Any]
) -> None:
    answer = client.post("/search", json={"query": QUERY, **options}).json()
    result = engine.search(QUERY, **options)
    assert [(hit["id"], hit["score"], hit["dense"], hit["sparse"]) for hit in answer["hits"]] == [
        (hit.doc_id, hit.score, hit.dense, hit.sparse) for hit in result.hits
    ]
    assert (answer["proven"], answer["depth"]) == (result.proven, result.depth)
    assert answer["bound"] is None  # all four were scored, which JSON's numbers cannot say
    assert answer["documents"] == engine.count(options.get("where"))
    ranks = [hit["rank"] for hit in answer["hits"]]
    assert ranks == [options.get("offset", 0) + n + 1 for n in range(len(ranks))]
    assert (answer["index"], answer["generation"]) == ("demo", engine.manifest.generation)
    assert answer["timing"].keys() == {"encode_ms", "search_ms", "total_ms"}


def test_without_proof_the_answer_says_what_may_be_lost(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(40)]
    documents = [
        Document(f"d{number}", f"{words[number % 40]} {words[number * 7 % 39]}")
        for number in range(200)
    ]
    build_index(documents, WordEncoder(), tmp_path / "graph", hnsw=True)
    write_index(tmp_path / "plain")
    asked = {"query": "w3 w5", "k": 5, "mode": "fast"}
    with (
        serving(tmp_path / "graph", tmp_path / "plain") as client,
        SearchEngine.open(tmp_path / "graph", WordEncoder(), feedback=0.3) as engine,
    ):
        answer = client.post("/search", json=asked).json()
        result = engine.search("w3 w5", 5, mode="fast")
        assert [hit["score"] for hit in answer["hits"]] == [hit.score for hit in result.hits]
        assert answer["proven"] is result.proven is False
        assert (answer["bound"], answer["loss"]) == (result.bound, result.loss)
        exact = client.post("/search", json=asked | {"mode": "exact"}).json()
        assert (exact["proven"], exact["loss"]) == (True, 0)
        refused = client.post("/search", json=asked | {"index": "plain"})
        status, code, message = problem(refused)
        assert (status, code) == (422, "bad_value")
        assert "index with --hnsw" in message


def test_a_batch_gives_the_answers_of_its_queries_in_their_order(client: TestClient) -> None:
    queries = ["vitamin", "lock", "vitamin"]
    together = client.post("/search", json={"queries": queries, "k": 2}).json()
    for query, answer in zip(queries, together["answers"], strict=True):
        alone = client.post("/search", json={"query": query, "k": 2}).json()
        assert answer | {"timing": None} == alone | {"timing": None}


def test_hits_carry_their_document_and_a_snippet_with_the_parts_of_terms(
    client: TestClient, engine: SearchEngine
) -> None:
    answer = client.post("/search", json={"query": "vitamin lock", "feedback": 0, "texts": True})
    for hit in answer.json()["hits"]:
        document = next(each for each in DOCUMENTS if each.doc_id == hit["id"])
        assert (hit["title"], hit["text"]) == (document.title, document.text)
        assert hit["metadata"] == document.metadata
        terms = explain(engine, "vitamin lock", hit["id"], feedback=0).terms
        products = {term.text: term.product for term in terms}
        assert hit["snippet"]["text"] == document.text
        assert (hit["snippet"]["before"], hit["snippet"]["after"]) == (False, False)
        for mark in hit["snippet"]["highlights"]:
            assert mark["weight"] == products[document.text[mark["start"] : mark["end"]]]
    marked = {hit["id"]: len(hit["snippet"]["highlights"]) for hit in answer.json()["hits"]}
    assert marked["sun"] == marked["bone"] == marked["a/b"] == 1
    bare = client.post("/search", json={"query": "vitamin", "snippets": False}).json()["hits"][0]
    assert bare["snippet"] is bare["text"] is None


def test_facets_count_what_matches_beside_the_hits_and_alone(client: TestClient) -> None:
    asked = {"facets": ["kind", "year"], "where": "kind exists or year exists"}
    answer = client.post("/search", json={"query": QUERY, "k": 1, **asked}).json()
    alone = client.post("/facets", json=asked).json()
    assert alone["documents"] == answer["documents"] == 3
    expected = {
        "kind": [{"value": "note", "documents": 2}],
        "year": [{"value": 2019, "documents": 1}, {"value": 2020, "documents": 1}],
    }
    assert alone["facets"] == answer["facets"] == expected
    assert '"value":2019,' in client.post("/facets", json=asked).text  # an integer stays one


def test_explain_says_what_the_engine_says_with_the_proof_of_the_answer(
    client: TestClient, engine: SearchEngine
) -> None:
    taken = client.post("/explain", json={"query": QUERY, "id": "bone", "k": 1}).json()
    true = explain(engine, QUERY, "bone", k=1)
    assert (taken["rank"], taken["score"], taken["gap"]) == (true.rank, true.score, true.gap)
    assert [(each["term"], each["product"]) for each in taken["terms"]] == [
        (term.text, term.product) for term in true.terms
    ]
    result = engine.search(QUERY, 1)
    assert taken["depth"] == result.depth
    assert problem(client.post("/explain", json={"query": QUERY, "id": "no"}))[:2] == (
        404, "no_document",
    )  # fmt: skip


def test_documents_are_found_by_any_id(client: TestClient) -> None:
    for path, doc_id in (("a/b", "a/b"), ("a%2Fb", "a/b"), ("%3Cb%3E", "<b>")):
        found = client.get(f"/documents/{path}").json()
        document = next(each for each in DOCUMENTS if each.doc_id == doc_id)
        assert found == {
            "id": doc_id, "title": document.title, "text": document.text,
            "metadata": document.metadata,
        }  # fmt: skip
    for path in ("", "no", "%00", "..%2Fsun", "%ff"):
        assert problem(client.get(f"/documents/{path}"))[:2] == (404, "no_document")


def test_several_indexes_are_asked_by_name(folder: Path, tmp_path: Path) -> None:
    other = write_index(tmp_path / "other")
    with serving(folder, other) as client:
        listed = client.get("/indexes").json()["indexes"]
        assert [(each["name"], each["default"]) for each in listed] == [
            ("demo", True), ("other", False),
        ]  # fmt: skip
        assert listed[0]["documents"] == 4
        assert client.post("/search", json={"query": "d"}).json()["index"] == "demo"
        assert client.post("/search?index=other", json={"query": "d"}).json()["index"] == "other"
        named = {"query": "d", "index": "other"}
        assert client.post("/search", json=named).json()["index"] == "other"
        assert client.get("/documents/sun?index=other").json()["id"] == "sun"
        assert problem(client.get("/info?index=no"))[:2] == (404, "no_index")


def test_info_metrics_and_health(client: TestClient, engine: SearchEngine) -> None:
    info = client.get("/info").json()
    assert (info["documents"], info["seal"]) == (4, engine.manifest.encoder_seal)
    assert client.get("/health").json() == client.get("/ready").json() == {"status": "ok"}
    client.post("/search", json={"query": "a secret question"})
    metrics = client.get("/metrics").text
    assert 'dupmae_requests_total{route="POST /search",status="200"}' in metrics
    assert 'dupmae_index_documents{index="demo"} 4.0' in metrics
    assert "secret" not in metrics


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({}, "bad_value", "either query or queries"),
    ({"query": "a", "queries": ["b"]}, "bad_value", "either query or queries"),
    ({"query": " \n"}, "bad_query", "empty"),
    ({"query": "a" * 101}, "bad_query", "100 characters"),
    ({"queries": ["a"] * 5}, "bad_value", "4 queries"),
    ({"queries": []}, "bad_value", "queries"),
    ({"query": "a", "k": 0}, "bad_value", "k: "),
    ({"query": "a", "k": 21}, "bad_value", "k may be 20 at most"),
    ({"query": "a", "k": "10"}, "bad_value", "k: "),
    ({"query": "a", "offset": 31}, "bad_value", "offset may be 30 at most"),
    ({"query": "a", "where": "year >"}, "bad_filter", "expected"),
    ({"query": "a", "where": "(" * 101}, "bad_filter", "100 characters"),
    ({"query": "a", "facets": ["a b"]}, "bad_facets", "expected"),
    ({"query": "a", "facets": ["a"] * 21}, "bad_value", "facets"),
    ({"query": "a", "dense_weight": -1}, "bad_value", "dense_weight"),
    ({"query": "a", "dense_weight": 0, "sparse_weight": 0}, "bad_value", "one of the two"),
    ({"query": "a", "kk": 3}, "bad_value", "kk"),
    ({"query": 3}, "bad_value", "query"),
    ({"query": None, "queries": [None]}, "bad_value", "queries.0"),
]


@pytest.mark.parametrize(("asked", "code", "words"), WRONG)
def test_a_wrong_request_is_refused_in_one_line(
    folder: Path, asked: dict[str, Any], code: str, words: str
) -> None:
    limits = {"max_k": 20, "max_offset": 30, "max_query_length": 100, "max_queries": 4}
    with serving(folder, **limits) as client:
        status, found, message = problem(client.post("/search", json=asked))
    assert (status, found) == (422, code)
    assert words in message


def test_explain_encodes_a_query_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, encoded = WordEncoder.encode_queries, []

    def count(self: WordEncoder, texts: list[str], corpus: CorpusStatistics | None = None) -> Any:
        encoded.extend(texts)
        return encode(self, texts, corpus)

    with serving(folder) as client:
        monkeypatch.setattr(WordEncoder, "encode_queries", count)
        assert client.post("/explain", json={"query": QUERY, "id": "bone"}).is_success
    assert encoded == [QUERY]


def test_explain_reaches_every_rank_that_a_page_does_and_none_beyond(folder: Path) -> None:
    asked = {"query": QUERY, "id": "bone"}
    with serving(folder, max_k=20, max_offset=30) as client:
        assert client.post("/explain", json={**asked, "k": 50}).json()["k"] == 50
        beyond = problem(client.post("/explain", json={**asked, "k": 51}))
    assert beyond[1:] == ("bad_value", "k may be 50 at most, found 51")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"query": NaN}',
        b'{"query": "a", "dense_weight": Infinity}',
        b'{"query": "a", "dense_weight": 1e999}',
        b'{"query": "a", "k": ' + b"9" * 5000 + b"}",
        b'{"query": "a\\ud800"}',
        b'{"query": "a", "where": "x = \\"\\udfff\\""}',
        b'{"query": "\xff"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"query": "a", "facets": [{}]}',
    ],
)
def test_hostile_bodies_get_a_clean_refusal(client: TestClient, body: bytes) -> None:
    response = client.post("/search", content=body, headers={"content-type": "application/json"})
    assert response.status_code in {400, 422}
    problem(response)


def test_a_body_that_is_not_called_json_is_not_read_as_json(client: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        headers = {} if kind is None else {"content-type": kind}
        content = json.dumps({"query": "a"}).encode()
        assert client.post("/search", content=content, headers=headers).status_code == 422


def test_unknown_paths_and_methods_are_refused_in_the_same_form(client: TestClient) -> None:
    assert problem(client.get("/nothing"))[:2] == (404, "not_found")
    assert problem(client.get("/search"))[:2] == (405, "bad_method")
    assert problem(client.post("/documents", json={"documents": []}))[0] in {404, 405}
    assert problem(client.delete("/documents/sun"))[:2] == (405, "bad_method")


def test_the_schema_names_every_route_with_examples(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        "/search", "/explain", "/facets", "/documents/{doc_id}", "/indexes", "/info", "/health",
        "/ready", "/metrics",
    }  # fmt: skip
    examples = schema["components"]["schemas"]["ExplainRequest"]["properties"]["query"]["examples"]
    assert examples == ["does vitamin D prevent fractures?"]
    assert "/docs" not in client.get("/docs").text  # no page that loads scripts from elsewhere
