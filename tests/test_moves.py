"""Facts about the queries that moved most."""

from __future__ import annotations

from pathlib import Path

from dupmae.eval import Collection, Explained, Recorded, evaluate, largest_moves
from dupmae.eval.tables import moves_text

QRELS = {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 1}, "q4": {"d": 1}}
COLLECTION = Collection(
    "toy", "test", {query_id: f"text of {query_id}" for query_id in QRELS}, QRELS, Path("corpus")
)
BASELINE = Recorded(
    {
        "q1": [("x", 2.0), ("a", 1.0)],  # 1/2
        "q2": [("b", 1.0)],  # 1
        "q3": [("c", 1.0)],  # 1
        "q4": [("x", 3.0), ("y", 2.0), ("d", 1.0)],  # 1/3
    }
)
OURS = Recorded(
    {
        "q1": [("a", 1.0)],  # 1
        "q2": [],  # 0
        "q3": [("c", 1.0)],  # 1
        "q4": [("x", 2.0), ("d", 1.0)],  # 1/2
    }
)


def explain(query: str, doc_id: str) -> Explained | None:
    """Explain every document but x, which our index is taken not to have."""
    return None if doc_id == "x" else Explained(doc_id, 3, 1.5, 1.0, 0.5, ((query[-2:], 0.25),))


def test_the_largest_differences_come_first_and_equal_values_do_not_count() -> None:
    report = evaluate({"ours": OURS, "theirs": BASELINE}, COLLECTION, measures=["RR", "AP"])
    moves = list(largest_moves(report, COLLECTION.queries, "theirs", explain))
    assert [(move.query_id, move.difference) for move in moves] == [
        ("q2", -1.0),
        ("q1", 1 / 2),
        ("q4", 1 / 2 - 1 / 3),
    ]
    assert {(move.system, move.measure) for move in moves} == {("ours", "RR")}


def test_the_first_hits_of_both_are_explained() -> None:
    report = evaluate({"ours": OURS, "theirs": BASELINE}, COLLECTION, measures=["RR"])
    second, first, _ = largest_moves(report, COLLECTION.queries, "theirs", explain)
    assert second.top is None  # nothing was found
    assert second.baseline_top == Explained("b", 3, 1.5, 1.0, 0.5, (("q2", 0.25),))
    assert first.baseline_top is None  # x is not in the index
    text = moves_text([second, first])
    assert "-1.0000  ours, query q2: text of q2" in text
    assert "baseline's: b (ours: rank 3, 1.50; dense 1.00, sparse 0.50: q2 0.25)" in text
    assert "first: nothing that our index has" in text


def test_systems_that_agree_have_no_moves() -> None:
    report = evaluate({"ours": OURS, "same": OURS}, COLLECTION, measures=["RR"])
    assert list(largest_moves(report, COLLECTION.queries, "same", explain)) == []
    assert moves_text([]) == ""
