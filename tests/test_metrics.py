"""Facts about measures: worked by hand, and equal to trec_eval's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from dupmae.errors import UsageError
from dupmae.eval.metrics import (
    MEASURES,
    aggregate,
    largest_cutoff,
    measure_run,
    parse_measures,
)
from dupmae.eval.runs import Run, write_run

QRELS = {
    "q1": {"a": 2, "b": 1, "c": 0, "e": 1},
    "q2": {"x": 1},
    "q3": {"y": 1, "z": -1},
}
RUN: Run = {
    "q1": [("c", 9.0), ("a", 8.0), ("u", 7.0), ("b", 6.0)],  # u is not judged, e is not found
    "q2": [("w", 3.0), ("v", 2.0)],  # nothing relevant
    "q9": [("a", 1.0)],  # not judged
}


def test_the_default_measures_are_what_hand_and_paper_give() -> None:
    values = measure_run(RUN, QRELS)
    # Gains are the grades, divided by log2(rank + 1): a (2) at rank 2, b (1) at rank 4;
    # the best order has the grades 2, 1, 1 at ranks 1, 2, 3.
    dcg = 2 / math.log2(3) + 1 / math.log2(5)
    best = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert values["nDCG@10"]["q1"] == pytest.approx(dcg / best, abs=1e-12)
    assert values["R@100"]["q1"] == pytest.approx(2 / 3)
    assert values["RR@10"]["q1"] == pytest.approx(1 / 2)
    assert values["AP"]["q1"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert {name: by_query["q2"] for name, by_query in values.items()} == dict.fromkeys(
        MEASURES, 0.0
    )


def test_a_query_without_an_answer_counts_as_zero_and_one_without_judgements_not_at_all() -> None:
    values = measure_run(RUN, QRELS)
    for by_query in values.values():
        assert by_query.keys() == QRELS.keys()
        assert by_query["q3"] == 0.0
    means = aggregate(values)
    assert list(means) == list(MEASURES)
    assert means["RR@10"] == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert means["R@100"] == pytest.approx((2 / 3 + 0 + 0) / 3)


def test_an_empty_answer_is_no_answer() -> None:
    assert measure_run({"q2": []}, QRELS, ["AP"]) == {"AP": {"q1": 0.0, "q2": 0.0, "q3": 0.0}}
    assert measure_run({}, QRELS, ["AP"]) == {"AP": {"q1": 0.0, "q2": 0.0, "q3": 0.0}}


def test_ties_are_taken_in_the_order_of_the_run() -> None:
    qrels = {"q": {"a": 1}}
    for order, rank in ((["a", "b", "c"], 1), (["b", "a", "c"], 2), (["c", "b", "a"], 3)):
        run: Run = {"q": [(doc_id, 1.0) for doc_id in order]}
        values = measure_run(run, qrels, ["RR@10", "RR", "nDCG@10"])
        assert values["RR@10"]["q"] == values["RR"]["q"] == 1 / rank
        assert values["nDCG@10"]["q"] == pytest.approx(1 / math.log2(rank + 1))


def test_the_rank_cutoff_is_inclusive() -> None:
    run: Run = {"q": [(f"d{rank}", 1.0 / rank) for rank in range(1, 12)]}
    assert measure_run(run, {"q": {"d10": 1}}, ["RR@10"])["RR@10"]["q"] == 1 / 10
    assert measure_run(run, {"q": {"d11": 1}}, ["RR@10"])["RR@10"]["q"] == 0.0


def test_a_cutoff_of_judged_documents_looks_past_those_without_a_judgement() -> None:
    run: Run = {"q": [("u", 4.0), ("v", 3.0), ("a", 2.0), ("b", 1.0)]}
    names = ["P(judged_only=True)@2", "P@2"]
    values = measure_run(run, {"q": {"a": 1, "b": 0}}, names)
    assert [by_query["q"] for by_query in values.values()] == [1 / 2, 0.0]


def random_collection(seed: int) -> tuple[dict[str, dict[str, int]], Run]:
    """Return graded judgements and a run with many ties, of 40 queries over 300 documents."""
    generator = np.random.default_rng(seed)
    qrels, run = {}, {}
    for query in range(40):
        judged = generator.choice(300, size=20, replace=False)
        grades = generator.integers(-1, 4, size=20)
        qrels[f"q{query}"] = {f"d{d}": int(g) for d, g in zip(judged, grades, strict=True)}
        found = generator.choice(300, size=150, replace=False)
        scores = np.sort(generator.integers(0, 30, size=150) / 7)[::-1]
        run[f"q{query}"] = [(f"d{d}", float(s)) for d, s in zip(found, scores, strict=True)]
    return qrels, run


def test_values_equal_those_of_trec_eval_on_the_run_file(tmp_path: Path) -> None:
    qrels, run = random_collection(seed=7)
    write_run(run, tmp_path / "run.trec")
    with (tmp_path / "run.trec").open() as stream:
        from_file = pytrec_eval.parse_run(stream)
    names = {
        "nDCG@10": "ndcg_cut_10",
        "nDCG@5": "ndcg_cut_5",
        "nDCG": "ndcg",
        "R@100": "recall_100",
        "P@10": "P_10",
        "AP@100": "map_cut_100",
        "AP": "map",
        "RR": "recip_rank",
    }
    expected = pytrec_eval.RelevanceEvaluator(qrels, set(names.values())).evaluate(from_file)
    values = measure_run(run, qrels, list(names))
    for name, trec_name in names.items():
        for query_id in qrels:
            assert values[name][query_id] == pytest.approx(expected[query_id][trec_name], abs=1e-9)


def test_measures_that_count_are_summed() -> None:
    assert aggregate(measure_run(RUN, QRELS, ["NumRet"])) == {"NumRet": 4.0 + 2.0}


def test_any_name_of_ir_measures_is_understood() -> None:
    names = ["nDCG@10", "P(rel=2)@5", "Success@1", "Judged@10", "SetF(beta=0.5)", "IPrec@0.1"]
    assert [str(measure) for measure in parse_measures(names)] == names
    assert str(parse_measures(["MRR@10"])[0]) == "RR@10"
    assert measure_run(RUN, QRELS, ["Judged@2"])["Judged@2"]["q1"] == 1.0
    assert measure_run(RUN, QRELS, ["P(rel=2)@2"])["P(rel=2)@2"]["q1"] == 1 / 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ndgc@10", "knows no measure 'ndgc'; the nearest name is 'nDCG'"),
        ("nDCG@ten", "is not of the form Name@cutoff"),
        ("nDCG 10", "is not of the form Name@cutoff"),
        ("", "is not of the form Name@cutoff"),
        ("P(5)", "is not of the form Name@cutoff"),
        ("R@0", "'R@0' needs a whole number above 0 after an @, as in P@10"),
        ("R@-5", "needs a whole number above 0"),
        ("R@True", "needs a whole number above 0"),
        ("P", "'P' needs a whole number above 0"),
        ("AP(colour=1)", "cannot be computed: unsupported params found"),
        ("AP(rel=0)", "cannot be computed: .*relevance_level"),
    ],
)
def test_a_name_that_is_no_measure_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        parse_measures([name])
    assert "\n" not in str(error.value)


def test_no_measure_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no measure was named; try nDCG@10"):
        parse_measures([])


def test_the_largest_cutoff_says_how_many_hits_are_needed() -> None:
    assert largest_cutoff(MEASURES) == 100
    assert largest_cutoff(["AP", "IPrec@0.5"]) == 0
