"""The mode fast: true scores in the right order, few misses, and bounds of what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fakes import FakeEncoder, WordReader
from forged import approve
from random_corpus import build_three_segments, random_documents
from tiny_model import tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model
from dupmae.cli import main
from dupmae.engine import (
    Chunk,
    SearchEngine,
    build_index,
    compact,
    fast,
    read_manifest,
    verify_index,
)
from dupmae.engine.fast import fuse_fast
from dupmae.engine.fusion import Stores, fuse_batch
from dupmae.engine.lists import Listing
from dupmae.engine.weights import Weights
from dupmae.errors import UsageError
from dupmae.indexes.hnsw import NearGraph
from dupmae.results import SearchResult
from dupmae.types import Document, Encoded, Float32

QUERIES = [f"w{n} w{n * 7 % 90} w{n * 3}" for n in range(20)]


DOCUMENTS = random_documents(1500)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index of three segments, the second without a graph; some of each deleted."""
    folder = tmp_path_factory.mktemp("fast") / "index"
    build_three_segments(folder, {"hnsw": True}, {"hnsw": False}, {"hnsw": True})
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[SearchEngine]:
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        assert [part.segment.graph is not None for part in engine.view.parts] == [True, False, True]
        yield engine


def without(stores: Stores, lost: int) -> Stores:
    """Return stores whose graphs never find a document."""

    def near(queries: Float32, depth: int) -> list[Listing]:
        listings = stores.near(queries, depth)
        return [Listing(each.ordinals[each.ordinals != lost], each.ceiling) for each in listings]

    return replace(stores, near=near)


def ids(result: SearchResult) -> list[str]:
    return [hit.doc_id for hit in result.hits]


@pytest.mark.parametrize(
    ("weights", "where"),
    [
        ((1.0, 1.0), None),
        ((1.0, 1.0), "third = 1"),
        pytest.param((0.2, 3.0), None, marks=pytest.mark.slow),
        pytest.param((0.2, 3.0), "third = 1", marks=pytest.mark.slow),
        ((1.0, 0.0), None),
        pytest.param((1.0, 0.0), "third = 1", marks=pytest.mark.slow),
        ((0.0, 1.0), None),
        pytest.param((0.0, 1.0), "third = 1", marks=pytest.mark.slow),
    ],
)
def test_hits_have_their_true_scores_in_order_and_few_are_missing(
    engine: SearchEngine, where: str | None, weights: tuple[float, float]
) -> None:
    chosen = {"where": where, "dense_weight": weights[0], "sparse_weight": weights[1]}
    everything = engine.search_batch(QUERIES, 1500, **chosen)
    answers = engine.search_batch(QUERIES, 10, mode="fast", **chosen)
    found = 0
    for truth, answer in zip(everything, answers, strict=True):
        places = [truth.hits.index(hit) for hit in answer.hits]  # equal to the last bit
        assert len(places) == 10
        assert places == sorted(set(places))
        found += sum(place < 10 for place in places)
        missing = [hit.score for hit in truth.hits if hit not in answer.hits]
        assert max(missing) <= max(answer.bound, answer.hits[-1].score)
        assert max(missing) - answer.hits[-1].score <= answer.loss
        if answer.proven:
            assert places == list(range(10))
            assert answer.loss == 0
    assert found > 0.95 * len(QUERIES) * 10
    if where is None and weights == (1.0, 1.0):
        assert max(answer.depth for answer in answers) < len(engine) / 2
        assert not all(answer.proven for answer in answers)


def test_the_bound_holds_of_the_best_document_when_it_is_not_found(engine: SearchEngine) -> None:
    stores, weights = engine.view.stores, Weights(1.0, 0.0)
    queries = engine.encoder.encode_queries(QUERIES)
    truth = fuse_batch(queries, stores, 3, weights)
    for number, whole in enumerate(truth):
        query = Encoded(queries.dense[[number]], queries.sparse.rows(number, number + 1))
        lost = int(whole.ranking.ordinals[0])
        (answer,) = fuse_fast(query, without(stores, lost), 3, weights)
        assert answer.ranking.ordinals.tolist()[:2] == whole.ranking.ordinals.tolist()[1:]
        assert not answer.proven
        assert answer.bound >= whole.ranking.scores[0]


def test_feedback_moves_the_query_towards_what_was_found(engine: SearchEngine) -> None:
    exact = engine.search_batch(QUERIES, 10, feedback=0.5)
    found = engine.search_batch(QUERIES, 10, feedback=0.5, mode="fast")
    same = [set(ids(a)) & set(ids(b)) for a, b in zip(exact, found, strict=True)]
    assert sum(map(len, same)) > 0.9 * 10 * len(QUERIES)


@pytest.mark.parametrize("k", [700, 5000])
def test_a_walk_that_would_reach_all_is_an_exact_answer(engine: SearchEngine, k: int) -> None:
    assert engine.search("w1 w2", k, mode="fast") == engine.search("w1 w2", k)


def test_a_filter_that_leaves_few_is_answered_exactly(engine: SearchEngine) -> None:
    for where in ("tenth = 1", "tenth = 77"):
        fast_answers = engine.search_batch(QUERIES, 5, where=where, mode="fast")
        assert fast_answers == engine.search_batch(QUERIES, 5, where=where)
        assert all(answer.proven for answer in fast_answers)


def test_pages_have_no_document_twice(engine: SearchEngine) -> None:
    pages = [engine.search("w5 w9", 5, offset=offset, mode="fast") for offset in (0, 5, 10)]
    found = [doc_id for page in pages for doc_id in ids(page)]
    assert len(found) == len(set(found)) == 15


def test_documents_in_passages_are_found_by_their_best(tmp_path: Path) -> None:
    encoder = WordReader(400)
    build_index(
        random_documents(300, words=30), encoder, tmp_path / "x", hnsw=True, chunk=Chunk(8, 2)
    )
    with SearchEngine.open(tmp_path / "x", encoder) as engine:
        found = 0
        for query in QUERIES:
            truth = engine.search(query, 300)
            answer = engine.search(query, 10, mode="fast")
            assert len(answer.hits) == 10
            by_id = {hit.doc_id: hit for hit in truth.hits}
            assert all(hit.score <= by_id[hit.doc_id].score for hit in answer.hits)
            found += len(set(ids(answer)) & set(ids(truth)[:10]))
        assert found > 0.9 * 10 * len(QUERIES)


def test_fewer_found_than_asked_for_are_an_exact_answer(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Listing(np.zeros(0, np.int64), 1.0)
    monkeypatch.setattr(fast, "_near_in", lambda *_: [nothing])
    for query in ("unheard", "w299"):  # in no document, and in few
        encoded = engine.encoder.encode_queries([query])
        (answer,) = fuse_fast(encoded, engine.view.stores, 200, Weights())
        (whole,) = fuse_batch(encoded, engine.view.stores, 200, Weights())
        assert answer.proven
        assert answer.ranking.ordinals.tolist() == whole.ranking.ordinals.tolist()


def test_another_mode_or_an_index_without_a_graph_is_refused(
    engine: SearchEngine, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="exact or fast, found 'quick'"):
        engine.search("w1", mode="quick")
    build_index(DOCUMENTS[:9], FakeEncoder(), tmp_path / "x")
    with (
        SearchEngine.open(tmp_path / "x", FakeEncoder()) as other,
        pytest.raises(UsageError, match="index with --hnsw"),
    ):
        other.search("w1", mode="fast")


def test_the_view_that_is_searched_has_the_graph_whatever_a_reload_finds(tmp_path: Path) -> None:
    folder, weights = tmp_path / "x", Weights(feedback=0.5)
    build_index(DOCUMENTS[:90], FakeEncoder(), folder, hnsw=True)
    build_index([Document("last", "w1")], FakeEncoder(), folder, hnsw=False)
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        # The second leaves only what no graph holds, the third nothing.
        views = [engine.select(where) for where in (None, "not third >= 0", "third = 7")]
        build_index(DOCUMENTS[:90], FakeEncoder(), folder, replace=True, hnsw=False)
        assert engine.reload()
        for view, count in zip(views, (5, 1, 0), strict=True):
            encoded = engine.encode(["w1"], weights, view, mode="fast")
            (result,) = engine.search_encoded(
                ["w1"], encoded, 5, offset=0, weights=weights, view=view, mode="fast"
            )
            assert len(result.hits) == count
        with pytest.raises(UsageError, match="index with --hnsw"):
            engine.search("w1", mode="fast")


# ---- the graph among the files of an index ---------------------------------------------------


def graphs(folder: Path) -> list[str]:
    return [file.path for file in read_manifest(folder).files if "hnsw" in file.path]


def test_what_is_added_or_merged_has_a_graph_as_the_newest_segment_has(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    build_index(DOCUMENTS[:90], FakeEncoder(), folder, hnsw=True)
    build_index(DOCUMENTS[90:100], FakeEncoder(), folder)
    assert len(graphs(folder)) == 2
    compact(folder)
    assert len(graphs(folder)) == 1
    build_index(DOCUMENTS[100:110], FakeEncoder(), folder, hnsw=False)
    assert len(graphs(folder)) == 1
    compact(folder)
    assert graphs(folder) == []


def test_a_damaged_graph_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    build_index(DOCUMENTS[:300], FakeEncoder(), folder, hnsw=True)
    assert verify_index(folder, deep=True) == []
    (name,) = graphs(folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    (problem,) = verify_index(folder)
    assert f"the content of {name} has changed" in problem


def test_a_graph_of_other_vectors_is_found_in_depth(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    build_index(DOCUMENTS, FakeEncoder(), folder, hnsw=True)
    (name,) = graphs(folder)
    dense = np.load(folder / "segments/000001/forward/dense.npy")
    NearGraph.build((folder / name).parent, dense[::-1].copy())
    approve(folder)
    assert verify_index(folder) == []
    problems = verify_index(folder, deep=True)
    assert "the graph holds another vector for row 0" in problems[0]


# ---- the commands ----------------------------------------------------------------------------


def run(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=given)


def test_the_commands_make_a_graph_and_say_what_is_approximate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(expansion=0.0), tiny_tokenizer(), tmp_path / "tiny", name="tiny")
    syllables = [a + b for a in "bdkr" for b in "aeio"]
    rng = np.random.default_rng(0)
    lines = [
        json.dumps({"_id": f"d{n}", "text": " ".join(rng.choice(syllables, 6))}) for n in range(200)
    ]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    model = ("--model", "tiny")
    asked = ("--sparse-weight", "0", *model)  # else the bound is so low that it is a proof
    assert run("index", "corpus.jsonl", *model).exit_code == 0
    refused = run("search", "ba de", "--mode", "fast", *model)
    assert refused.exit_code == 2
    assert "index with --hnsw" in refused.stderr
    assert json.loads(run("info", "--json").stdout)["segments"][0]["hnsw"] is False

    assert run("index", "corpus.jsonl", "--hnsw", "--replace", *model).exit_code == 0
    assert "with a graph for search --mode fast" in run("info").stdout
    text = run("search", "ba de", "--mode", "fast", *asked)
    assert "\napproximate: " in text.stdout, text.stderr
    found = json.loads(run("search", "ba de", "--mode", "fast", "--json", *asked).stdout)
    assert found["proven"] is False
    assert found["loss"] == found["bound"] - found["hits"][-1]["score"] > 0
    exact = json.loads(run("search", "ba de", "--json", *asked).stdout)
    assert (exact["proven"], exact["loss"]) == (True, 0)
    scores = {hit["id"]: hit["score"] for hit in exact["hits"]}
    assert {hit["id"] for hit in found["hits"]} & scores.keys()
    assert all(hit["score"] == scores.get(hit["id"], hit["score"]) for hit in found["hits"])

    (line,) = run("search", "-", "--mode", "fast", *asked, given="ba de\n").stdout.splitlines()
    assert json.loads(line)["hits"] == found["hits"]
    trec = run("search", "-", "--trec", "--mode", "fast", *asked, given="ba de\n").stdout
    assert [row.split()[2] for row in trec.splitlines()] == [hit["id"] for hit in found["hits"]]
