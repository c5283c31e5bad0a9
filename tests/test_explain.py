from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeEncoder

from dupmae.commands.display import Display
from dupmae.commands.explain import explanation_text, take_apart
from dupmae.engine import SearchEngine, TermMatch, build_index, explain
from dupmae.errors import DataError, UsageError
from dupmae.types import Document

DOCUMENTS = [
    Document("a", "whale whale ship"),
    Document("b", "ship"),
    Document("twin of b", "ship"),
    Document("c", "harpoon"),
    Document("empty", ""),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("explain") / "my.index"
    build_index(DOCUMENTS, FakeEncoder(), folder)
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        yield engine


def name(word: str) -> str:
    return f"term{FakeEncoder().term(word)}"


def test_terms_carry_both_weights_and_fall_by_product(engine: SearchEngine) -> None:
    # The fake encoder weighs a word that occurs n times by log(1 + n), in float32.
    explanation = explain(engine, "ship whale captain captain", "a")
    once, twice = pytest.approx(math.log(2), rel=1e-7), pytest.approx(math.log(3), rel=1e-7)
    rows = [(term.text, term.query_weight, term.document_weight) for term in explanation.terms]
    assert rows == [(name("whale"), once, twice), (name("ship"), once, once)]
    assert explanation.sparse == pytest.approx(math.log(2) * (math.log(3) + math.log(2)), rel=1e-6)


def test_query_terms_that_the_document_lacks_are_listed(engine: SearchEngine) -> None:
    explanation = explain(engine, "ship whale captain captain", "b")
    rows = [(term.text, term.document_weight, term.product) for term in explanation.missing]
    assert rows == [(name("captain"), 0.0, 0.0), (name("whale"), 0.0, 0.0)]


@pytest.mark.parametrize(
    ("count", "rest"), [(10, ""), (11, " and 1 lighter"), (40, " and 30 lighter")]
)
def test_of_many_terms_that_a_document_lacks_the_heaviest_are_shown(
    engine: SearchEngine, count: int, rest: str
) -> None:
    query = " ".join(f"unheard{number} " * (1 + number) for number in range(count))
    shown = explanation_text(take_apart(engine, query, "b", 10, None), Display())
    (lacking,) = [line for line in shown.splitlines() if "the document lacks" in line]
    assert lacking.count("(") == 10
    assert name(f"unheard{count - 1}") in lacking
    assert lacking.endswith(f"){rest}")


@pytest.mark.parametrize("doc_id", [document.doc_id for document in DOCUMENTS])
@pytest.mark.parametrize("query", ["ship", "whale ship harpoon", "", "unheard"])
@pytest.mark.parametrize(
    "weights", [(1.0, 1.0, 0.0), (0.3, 1.7, 0.4), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)]
)
def test_the_parts_add_up_and_agree_with_the_search(
    engine: SearchEngine, doc_id: str, query: str, weights: tuple[float, float, float]
) -> None:
    chosen = dict(zip(("dense_weight", "sparse_weight", "feedback"), weights, strict=True))
    explanation = explain(engine, query, doc_id, **chosen)
    hits = engine.search(query, k=5, **chosen).hits
    hit = hits[explanation.rank - 1]
    assert (hit.doc_id, hit.score) == (doc_id, explanation.score)
    assert (hit.dense, hit.sparse) == (explanation.dense, explanation.sparse)
    total = weights[0] * explanation.dense + weights[1] * math.fsum(
        term.query_weight * term.document_weight for term in explanation.terms
    )
    assert math.isclose(total, explanation.score, rel_tol=1e-12)


def test_query_weights_are_those_for_this_index(tmp_path: Path) -> None:
    encoder = FakeEncoder(corpus_idf=True)
    build_index(DOCUMENTS, encoder, tmp_path / "my.index")
    with SearchEngine.open(tmp_path / "my.index", encoder) as engine:
        explanation = explain(engine, "ship whale", "a")
        (hit,) = (hit for hit in engine.search("ship whale", k=5).hits if hit.doc_id == "a")
        assert (hit.score, hit.sparse) == (explanation.score, explanation.sparse)
    # Of five documents one holds "whale" and three hold "ship".
    rarity = {term.text: term.query_weight / math.log(2) for term in explanation.terms}
    assert rarity == {
        name("whale"): pytest.approx(math.log(1 + 6 / 2), rel=1e-6),
        name("ship"): pytest.approx(math.log(1 + 6 / 4), rel=1e-6),
    }


def test_the_engines_own_weights_are_used_unless_others_are_given(engine: SearchEngine) -> None:
    assert explain(engine, "ship", "a").weights == engine.weights
    assert explain(engine, "ship", "a", dense_weight=0.0).weights == replace(
        engine.weights, dense=0.0
    )


def test_equal_documents_rank_by_their_place(engine: SearchEngine) -> None:
    first, second = explain(engine, "ship", "b"), explain(engine, "ship", "twin of b")
    assert first.score == second.score
    assert second.rank == first.rank + 1


@pytest.mark.parametrize("k", [1, 2, 4, 5, 99])
@pytest.mark.parametrize("feedback", [0.0, 0.5])
def test_the_gap_is_what_a_document_lacks_to_the_kth_score(
    engine: SearchEngine, k: int, feedback: float
) -> None:
    hits = engine.search("ship whale", 5, feedback=feedback).hits
    kth_score = hits[min(k, 5) - 1].score
    for rank, hit in enumerate(hits, start=1):
        explanation = explain(engine, "ship whale", hit.doc_id, k=k, feedback=feedback)
        assert (explanation.rank, explanation.kth_score) == (rank, kth_score)
        assert explanation.gap == (kth_score - hit.score if rank > k else 0.0)


def test_a_k_below_one_is_a_usage_error(engine: SearchEngine) -> None:
    with pytest.raises(UsageError, match="found 0"):
        explain(engine, "ship", "a", k=0)


def test_parts_that_do_not_add_up_cannot_be_made(engine: SearchEngine) -> None:
    explanation = explain(engine, "ship whale", "a")
    with pytest.raises(ValueError, match="terms add up to"):
        replace(explanation, terms=explanation.terms[1:])
    with pytest.raises(ValueError, match="the parts do not give the score"):
        replace(explanation, score=explanation.score + 1e-9)


def test_a_term_adds_the_product_of_its_weights() -> None:
    assert TermMatch("x", 0.5, 3.0).product == 1.5


def test_an_unknown_document_is_a_data_error(engine: SearchEngine) -> None:
    with pytest.raises(DataError, match="nowhere"):
        explain(engine, "ship", "nowhere")


def test_a_bad_weight_is_a_usage_error(engine: SearchEngine) -> None:
    with pytest.raises(UsageError):
        explain(engine, "ship", "a", dense_weight=-1.0)
