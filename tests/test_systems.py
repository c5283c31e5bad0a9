"""Facts about systems: ours by weights, runs of others, answers that are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from dupmae.errors import DataError
from dupmae.eval.runs import write_run
from dupmae.eval.systems import (
    Answers,
    Positional,
    Recorded,
    Remembered,
    own_systems,
    share_found,
    without_itself,
)
from dupmae.indexes.topk import top_k
from dupmae.results import SearchResult
from dupmae.types import Document, Ranking


class NoSearcher:
    def search_batch(self, *_: object, **__: object) -> list[SearchResult]:
        raise AssertionError("not asked here")


class Counting:
    """Answers each query with a document of its number, and counts how often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    def search(self, queries: Mapping[str, str], k: int) -> Answers:
        self.times += 1
        return Answers({query_id: [(f"{self.times}", float(k))] for query_id in queries})


def test_an_engine_is_measured_as_the_sum_and_as_its_parts() -> None:
    systems = own_systems(NoSearcher(), dense_weight=2.0, sparse_weight=0.5)
    assert {name: tuple(own.weights.values()) for name, own in systems.items()} == {
        "hybrid": (2.0, 0.5, 0.0),
        "dense": (1.0, 0.0, 0.0),
        "sparse": (0.0, 1.0, 0.0),
    }


def test_a_model_with_feedback_is_also_measured_without() -> None:
    systems = own_systems(NoSearcher(), dense_weight=2.0, feedback=0.3)
    assert list(systems) == ["hybrid", "dense", "sparse", "no-feedback"]
    assert systems["hybrid"].feedback == 0.3
    assert systems["no-feedback"].weights == {
        "dense_weight": 2.0,
        "sparse_weight": 1.0,
        "feedback": 0.0,
    }


def test_the_last_answers_are_kept_for_who_asks_the_same() -> None:
    system = Counting()
    remembered = Remembered(system)
    first = remembered.search({"q": "fox"}, 10)
    assert remembered.search({"q": "fox"}, 10) is first
    assert system.times == 1
    for queries, k in (({"q": "fox"}, 11), ({"q": "whale"}, 11), ({"p": "whale"}, 11)):
        assert remembered.search(queries, k) is not first
    assert system.times == 4


class Longest:
    """Answers any query with the longest texts; keeps all that it is given."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(texts)
        self.queries: list[str] = []

    def search(self, queries: Sequence[str], k: int) -> list[Ranking]:
        self.queries += queries
        lengths = np.array([len(text) for text in self.texts], dtype=np.float64)
        return [top_k(lengths, k) for _ in queries]


def test_another_index_is_given_title_and_text_and_answers_by_position() -> None:
    documents = [Document("a", "fox"), Document("b", "sea", title="Whale"), Document("c", "crab")]
    system = Positional.build(documents, Longest)
    assert system.search({"q1": "x", "q2": "half \ud800"}, 2).run == {
        "q1": [("b", 9.0), ("c", 4.0)],
        "q2": [("b", 9.0), ("c", 4.0)],
    }
    assert isinstance(system.index, Longest)
    assert system.index.texts == ["fox", "Whale sea", "crab"]
    assert system.index.queries == ["x", "half ?"]


def test_a_run_of_others_is_cut_and_lacks_what_it_lacks(tmp_path: Path) -> None:
    write_run({"q1": [("a", 3.0), ("b", 2.0), ("c", 1.0)]}, tmp_path / "run.trec")
    system = Recorded.read(tmp_path / "run.trec")
    assert system.search({"q1": "", "q2": ""}, 2).run == {"q1": [("a", 3.0), ("b", 2.0)], "q2": []}


def test_scores_that_single_precision_takes_for_equal_can_be_measured(tmp_path: Path) -> None:
    # To trec_eval both score 1, so that c comes first; in double precision scores would rise.
    (tmp_path / "run").write_text("q Q0 b 1 1.00000000001 x\nq Q0 c 2 1.0 x\n")
    assert Recorded.read(tmp_path / "run").search({"q": ""}, 9).run["q"] == [("c", 1.0), ("b", 1.0)]


@pytest.mark.parametrize("score", ["1e39", "-2e38", "inf"])
def test_a_score_beyond_single_precision_is_refused(tmp_path: Path, score: str) -> None:
    (tmp_path / "run").write_text(f"q Q0 a 1 {score} x\n")
    with pytest.raises(DataError, match=r"line 1: the score must be a finite number below 1\.7e38"):
        Recorded.read(tmp_path / "run")


def test_a_query_is_not_among_its_own_hits() -> None:
    assert without_itself("q", [("a", 3.0), ("q", 2.0), ("b", 1.0)]) == [("a", 3.0), ("b", 1.0)]


def test_the_share_that_is_found_is_a_mean_over_queries() -> None:
    truth = {"q": [("a", 2.0), ("b", 1.0)], "p": [("a", 2.0)], "r": []}
    run = {"q": [("b", 1.0), ("c", 0.5)], "p": [("a", 2.0)], "r": [("a", 1.0)]}
    assert share_found(run, truth) == (1 / 2 + 1) / 2
    assert share_found(truth, truth) == 1
    assert share_found({}, {}) == 1
