"""`search` and `explain` on a tiny model, and what they say to bad input."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest
from click.testing import Result
from command_line import one_line, run
from tiny_model import tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model


def test_the_bare_commands_index_and_then_search_the_folder_made_last(
    indexed: Path, model: Path
) -> None:
    result = run("search", "ba be", "--model", str(model))
    assert result.exit_code == 0
    assert "1. " in result.stdout
    assert "\x1b" not in result.stdout
    assert "proven" in result.stdout
    assert indexed.is_dir()


def test_search_json_holds_the_ranking_its_parts_and_the_proof(indexed: Path, model: Path) -> None:
    result = run("search", "ba be", "-k", "2", "--json", "--model", str(model))
    answer = json.loads(result.stdout)
    assert answer["proven"] is True
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2]
    for hit in answer["hits"]:
        assert hit["score"] == hit["dense"] + hit["sparse"]
    assert answer["hits"][0]["score"] >= answer["hits"][1]["score"]
    assert {"title", "text", "metadata", "id"} <= answer["hits"][0].keys()
    first = answer["hits"][0]
    assert first["snippet"]["text"] == first["text"]
    marked = [first["text"][at["start"] : at["end"]] for at in first["snippet"]["highlights"]]
    assert marked == ["ba"]


def test_weights_given_at_query_time_weigh_the_parts(indexed: Path, model: Path) -> None:
    result = run(
        "search", "ba be", "--json", "--dense-weight", "0", "--sparse-weight", "2",
        "--model", str(model),
    )  # fmt: skip
    for hit in json.loads(result.stdout)["hits"]:
        assert hit["score"] == 2 * hit["sparse"]


def test_k_above_the_number_of_documents_returns_all(indexed: Path, model: Path) -> None:
    answer = json.loads(run("search", "ba", "-k", "99", "--json", "--model", str(model)).stdout)
    assert {hit["id"] for hit in answer["hits"]} == {"sea", "sky", "sun"}
    assert answer["bound"] is None


def test_explain_says_why_a_document_is_not_among_the_first(indexed: Path, model: Path) -> None:
    options = ["--model", str(model), "--feedback", "0"]
    hits = json.loads(run("search", "ba be", "--json", *options).stdout)["hits"]
    first, last = hits[0], hits[-1]
    taken = json.loads(run("explain", "ba be", last["id"], "-k", "1", "--json", *options).stdout)
    assert (taken["rank"], taken["k"], taken["kth_score"]) == (3, 1, first["score"])
    assert taken["gap"] == first["score"] - last["score"]
    assert "ba" in {term["term"] for term in taken["missing"]}
    assert taken["snippet"]["text"] == last["text"]
    text = run("explain", "ba be", last["id"], "-k", "1", *options).stdout
    assert last["text"] in text
    assert f"not among the first 1: {taken['gap']:.4f} below rank 1" in text
    assert "not among" not in run("explain", "ba be", last["id"], "-k", "3", *options).stdout


def test_where_restricts_search_and_explain_to_what_matches(indexed: Path, model: Path) -> None:
    where = ["--where", "year = 2020 or id = 'sun'", "--feedback", "0", "--model", str(model)]
    answer = json.loads(run("search", "ba be", "--json", *where).stdout)
    everything = json.loads(run("search", "ba be", "--json", *where[2:]).stdout)
    kept = [hit for hit in everything["hits"] if hit["id"] != "sea"]
    assert answer["hits"] == [hit | {"rank": rank} for rank, hit in enumerate(kept, start=1)]
    assert (answer["documents"], everything["documents"]) == (2, 3)
    text = run("search", "ba be", "-k", "1", *where).stdout
    assert "proven: none of the other 1 documents that match scores more" in text
    taken = json.loads(run("explain", "ba be", "sky", "--json", *where).stdout)
    assert (taken["rank"], taken["documents"]) == (2, 2)
    one_line(run("explain", "ba be", "sea", *where), 1, "sea", "does not match")
    nothing = run("search", "ba be", "--where", "year = 1", "--model", str(model))
    assert nothing.stdout == "proven: there are no more than 0 documents that match\n"


def test_facets_count_the_values_of_what_matches(here: Path, model: Path) -> None:
    lines = [
        {"_id": f"d{n}", "text": "ba be", "n": n, "of": ["x", str(n % 2)], "odd key": None}
        for n in range(13)
    ]
    Path("c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run("index", "c.jsonl", "--model", str(model)).exit_code == 0
    search = ["search", "ba", "-k", "1", "--model", str(model), "--facets", 'of,n,"odd key",no']
    assert run(*search).stdout.splitlines()[-4:] == [
        'of: "x" (13), "0" (7), "1" (6)',
        f"n: {', '.join(f'{n} (1)' for n in range(10))}, 3 more",
        '"odd key": null (13)',
        "no: no values",
    ]
    answer = json.loads(run(*search, "--where", "n > 11", "--json").stdout)
    assert answer["facets"] == {
        "of": [{"value": "0", "documents": 1}, {"value": "x", "documents": 1}],
        "n": [{"value": 12, "documents": 1}],
        '"odd key"': [{"value": None, "documents": 1}],
        "no": [],
    }
    one_line(run(*search[:-1], "of,"), 2, "character 4", "a key")


def test_pages_join_to_the_whole_ranking(indexed: Path, model: Path) -> None:
    def search(*options: str) -> Result:
        return run("search", "ba be", "--model", str(model), *options)

    pages = [
        json.loads(search("-k", "2", "--offset", offset, "--json").stdout)["hits"]
        for offset in ("0", "2", "4")
    ]
    assert [len(page) for page in pages] == [2, 1, 0]
    assert list(chain.from_iterable(pages)) == json.loads(search("--json").stdout)["hits"]
    text = search("-k", "1", "--offset", "1").stdout
    assert text.startswith("  2. ")
    assert "none of the other 1 documents scores more" in text
    assert "all documents" in search("-k", "1", "--offset", "2").stdout
    assert search("--offset", "3").stdout == "proven: there are no more than 3 documents\n"
    one_line(search("--offset", "-1"), 2, "-1")


@pytest.mark.parametrize("command", [["search", "ba"], ["explain", "ba", "sea"], ["delete"]])
def test_a_wrong_filter_is_exit_2_and_says_where(indexed: Path, command: list[str]) -> None:
    # It is said before a model is loaded.
    one_line(run(*command, "--where", "year ~ 2020"), 2, "character 6", "expected =")


def test_explain_adds_up_to_the_score_that_search_gave(indexed: Path, model: Path) -> None:
    hit = json.loads(run("search", "ba be", "--json", "--model", str(model)).stdout)["hits"][0]
    taken = json.loads(run("explain", "ba be", hit["id"], "--json", "--model", str(model)).stdout)
    assert taken["rank"] == 1
    assert taken["score"] == hit["score"]
    products = sum(term["product"] for term in taken["terms"])
    assert taken["dense"] + products == pytest.approx(taken["score"], rel=1e-12)
    text = run("explain", "ba be", hit["id"], "--model", str(model))
    assert f"{hit['id']}: rank 1 of 3" in text.stdout


def test_metadata_comes_back(indexed: Path, model: Path) -> None:
    hits = json.loads(run("search", "ka ke", "--json", "--model", str(model)).stdout)["hits"]
    (sky,) = [hit for hit in hits if hit["id"] == "sky"]
    assert sky["metadata"] == {"year": 2020}


@pytest.mark.parametrize("query", ["the", "🦜🦜", "ba " * 10_000, "\x00", "[MASK] [PAD]"])
def test_odd_queries_are_answered(indexed: Path, model: Path, query: str) -> None:
    answer = json.loads(run("search", query, "--json", "--model", str(model)).stdout)
    assert len(answer["hits"]) == 3
    assert answer["proven"]


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_query_is_a_usage_error(indexed: Path, model: Path, query: str) -> None:
    one_line(run("search", query, "--model", str(model)), 2, "query is empty")


@pytest.mark.parametrize("k", ["0", "-3"])
def test_k_below_one_is_a_usage_error(indexed: Path, model: Path, k: str) -> None:
    one_line(run("search", "ba", "-k", k, "--model", str(model)), 2, k)


def test_an_unknown_document_is_exit_1(indexed: Path, model: Path) -> None:
    one_line(run("explain", "ba", "moon", "--model", str(model)), 1, "moon")


def test_the_models_feedback_is_used_unless_another_is_given(
    here: Path, corpus: Path, tmp_path: Path
) -> None:
    moving = tmp_path / "moving"
    save_model(tiny_model(feedback=0.5), tiny_tokenizer(), moving, name="moving")
    chosen = ["--model", str(moving)]
    assert run("index", str(corpus), *chosen).exit_code == 0
    own, given, none = (
        json.loads(run("search", "ba be", "--json", *chosen, *more).stdout)["hits"]
        for more in ((), ("--feedback", "0.5"), ("--feedback", "0"))
    )
    assert own == given != none
    explained = json.loads(run("explain", "ba be", own[0]["id"], "--json", *chosen).stdout)
    assert (explained["feedback"], explained["score"]) == (0.5, own[0]["score"])

    folder = here / "data" / "toy"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_bytes(corpus.read_bytes())
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "ba be"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tsun\t1\n")
    result = run("eval", "--beir", "toy", "--data", "data", "--json", *chosen)
    weights = json.loads(result.stdout)["weights"]
    assert {name: weight["feedback"] for name, weight in weights.items()} == {
        "hybrid": 0.5,
        "dense": 0.0,
        "sparse": 0.0,
        "no-feedback": 0.0,
    }
    for system, hits in (("hybrid", own), ("no-feedback", none)):
        lines = (here / f"runs/eval/toy/{system}.trec").read_text().splitlines()
        assert [line.split()[2] for line in lines] == [hit["id"] for hit in hits]
        assert [float(line.split()[4]) for line in lines] == [hit["score"] for hit in hits]
