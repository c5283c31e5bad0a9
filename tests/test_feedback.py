"""Facts about pseudo-relevance feedback, against a plain computation of the module's formula."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from examples import examples
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from dupmae.engine import SearchEngine, build_index
from dupmae.engine.feedback import FEEDBACK_DOCUMENTS, FEEDBACK_TERMS, TEMPERATURE, feed_back
from dupmae.errors import IndexMissingError, UsageError
from dupmae.types import Document, Encoded, Ranking, SparseVectors

WORDS = [f"word{i}" for i in range(60)]
DOCUMENTS = [
    Document(f"d{i}", " ".join(WORDS[(i * step + step * step) % 60] for step in range(1, 13)))
    for i in range(80)
] + [Document("empty", "")]
QUERY = "word1 word7 word30"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("feedback") / "my.index"
    build_index(DOCUMENTS, FakeEncoder(), folder)
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        yield engine


def unit(vector: dict[int, float]) -> dict[int, float]:
    length = math.sqrt(math.fsum(value**2 for value in vector.values()))
    return {key: value / length for key, value in vector.items()} if length else vector


def moved(query: dict[int, float], feedback: dict[int, float], weight: float) -> dict[int, float]:
    length = math.sqrt(math.fsum(value**2 for value in query.values()))
    one, two = unit(query), unit(feedback)
    both = unit({key: one.get(key, 0) + weight * two.get(key, 0) for key in {*one, *two}})
    return {key: length * value for key, value in both.items()}


def expected(
    engine: SearchEngine, query: Encoded, best: list[tuple[int, float]], weight: float
) -> tuple[dict[int, float], dict[int, float]]:
    """Return the dense and the sparse part of q', from the documented formula."""
    odds = [math.exp((score / best[0][1] - 1) / TEMPERATURE) for _, score in best]
    dense: dict[int, float] = dict.fromkeys(range(engine.view.dim), 0.0)
    sparse: dict[int, float] = {}
    for (ordinal, _), odd in zip(best, odds, strict=True):
        share = odd / math.fsum(odds)
        for place, value in enumerate(engine.view.dense_rows(np.array([ordinal]))[0].tolist()):
            dense[place] += share * value
        terms = zip(*(part.tolist() for part in engine.view.sparse_row(ordinal)), strict=True)
        weighed = {}
        for term, value in terms:
            df = int(engine.view.corpus.frequency[term])
            weighed[term] = value * math.log(1 + (len(engine) - df + 0.5) / (df + 0.5))
        for term, value in unit(weighed).items():
            sparse[term] = sparse.get(term, 0.0) + share * value
    kept = sorted(sparse, key=lambda term: (-sparse[term], term))[:FEEDBACK_TERMS]
    asked = dict(enumerate(query.dense[0].tolist()))
    words = dict(zip(*(part.tolist() for part in query.sparse.row(0)), strict=True))
    return (
        moved(asked, dense, weight),
        moved(words, {term: sparse[term] for term in kept}, weight),
    )


@pytest.mark.parametrize("weight", [0.1, 0.4, 5.0])
def test_a_query_moves_as_the_formula_says(engine: SearchEngine, weight: float) -> None:
    query = engine.encoder.encode_queries([QUERY])
    first = engine.search(QUERY, FEEDBACK_DOCUMENTS).hits
    best = [(engine.documents.ordinal(hit.doc_id), hit.score) for hit in first]
    dense, sparse = expected(engine, query, best, weight)
    result = engine.encode([QUERY], engine.choose_weights(None, None, weight))
    np.testing.assert_allclose(result.dense[0], list(dense.values()), rtol=1e-6, atol=1e-7)
    terms, weights = result.sparse.row(0)
    assert terms.tolist() == sorted(sparse)
    assert len(terms) > len(query.sparse.row(0)[0])  # the documents brought terms
    np.testing.assert_allclose(weights, [sparse[term] for term in sorted(sparse)], rtol=1e-6)


@settings(max_examples=examples(30), deadline=None)
@given(
    st.lists(st.sampled_from([*WORDS, "unheard"]), max_size=6),
    st.integers(1, 90),
    st.sampled_from([(1.0, 1.0), (0.3, 2.0), (1.0, 0.0), (0.0, 1.0)]),
)
def test_the_answer_is_the_exact_and_proven_one_of_the_moved_query(
    engine: SearchEngine, words: list[str], k: int, weights: tuple[float, float]
) -> None:
    query = " ".join(words)
    chosen = dict(zip(("dense_weight", "sparse_weight"), weights, strict=True))
    result = engine.search(query, k, feedback=0.4, **chosen)
    assert result.proven
    asked = engine.encode([query], engine.choose_weights(*weights, 0.4))
    everything = np.arange(len(engine))
    dense, sparse = engine.view.score(asked.dense[0], *asked.sparse.row(0), everything)
    scores = weights[0] * dense + weights[1] * sparse
    order = np.argsort(-scores, kind="stable")[:k]
    assert [hit.doc_id for hit in result.hits] == engine.documents.ids(order)
    assert [hit.score for hit in result.hits] == scores[order].tolist()


def test_an_answer_depends_neither_on_k_nor_on_the_queries_beside_it(engine: SearchEngine) -> None:
    whole = engine.search(QUERY, len(engine), feedback=0.4).hits
    for k in (1, 3, 20):
        assert engine.search(QUERY, k, feedback=0.4).hits == whole[:k]
    beside = engine.search_batch(["word3", QUERY, ""], 20, feedback=0.4)
    assert beside[1].hits == whole[:20]


def test_lengths_stay(engine: SearchEngine) -> None:
    before = engine.encoder.encode_queries([QUERY])
    after = engine.encode([QUERY], engine.choose_weights(None, None, 0.7))
    for one, other in ((before.dense, after.dense), (before.sparse.weights, after.sparse.weights)):
        assert np.linalg.norm(other) == pytest.approx(np.linalg.norm(one), rel=1e-6)


def test_at_most_so_many_terms_are_added(engine: SearchEngine) -> None:
    after = engine.encode([QUERY], engine.choose_weights(None, None, 0.7))
    assert len(after.sparse.terms) <= 3 + FEEDBACK_TERMS


def test_a_query_without_terms_gets_none_and_still_moves(engine: SearchEngine) -> None:
    dense = np.ones((1, engine.view.dim), np.float32)
    query = Encoded(dense, SparseVectors.from_rows([(np.zeros(0, np.int32), np.zeros(0, "f4"))]))
    best = Ranking(np.array([4, 2]), np.array([2.0, 1.99]))
    after = feed_back(query, [best], engine.view, 0.5)
    assert len(after.sparse.terms) == 0
    assert not np.allclose(after.dense, dense)


@pytest.mark.parametrize("scores", [[0.0, -0.5], [-1.0, -2.0]])
def test_documents_that_do_not_answer_teach_nothing(
    engine: SearchEngine, scores: list[float]
) -> None:
    query = engine.encoder.encode_queries([QUERY])
    after = feed_back(query, [Ranking(np.array([4, 2]), np.array(scores))], engine.view, 0.5)
    assert np.array_equal(after.dense, query.dense)
    assert np.array_equal(after.sparse.weights, query.sparse.weights)


def test_the_engines_own_feedback_is_used_unless_another_is_given(
    engine: SearchEngine, tmp_path: Path
) -> None:
    build_index(DOCUMENTS, FakeEncoder(), tmp_path / "my.index")
    with SearchEngine.open(tmp_path / "my.index", FakeEncoder(), feedback=0.4) as other:
        assert other.search(QUERY) == engine.search(QUERY, feedback=0.4) != engine.search(QUERY)
        assert other.search(QUERY, feedback=0.0) == engine.search(QUERY)


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_bad_feedback_is_a_usage_error(engine: SearchEngine, weight: float) -> None:
    with pytest.raises(UsageError, match="feedback weight must be from 0"):
        engine.search(QUERY, feedback=weight)


def test_a_term_that_damage_lifted_above_the_vocabulary_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "my.index"
    build_index(DOCUMENTS[:3], FakeEncoder(), folder)
    (path,) = folder.rglob("terms.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x40  # the highest byte of the last term
    path.write_bytes(content)
    with (
        SearchEngine.open(folder, FakeEncoder()) as engine,
        pytest.raises(IndexMissingError, match=r"terms\.npy is damaged \(vector 2 has a term"),
    ):
        engine.search(QUERY, 3, feedback=0.5)
