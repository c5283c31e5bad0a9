"""Facts about the gate against an earlier report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dupmae.errors import DataError, UsageError
from dupmae.eval import Collection, Earlier, Recorded, Report, evaluate, falls

QUERIES = [f"q{number}" for number in range(40)]
COLLECTION = Collection(
    "toy",
    "test",
    dict.fromkeys(QUERIES, "?"),
    {query_id: {"good": 1} for query_id in QUERIES},
    Path("corpus.jsonl"),
)


def report(ranks: list[int], name: str = "hybrid") -> Report:
    """Return the report of a system that has the good document at these ranks."""
    run = {
        query_id: [("good" if place == rank else f"bad{place}", -float(place)) for place in (1, 2)]
        for query_id, rank in zip(QUERIES, ranks, strict=True)
    }
    return evaluate({name: Recorded(run)}, COLLECTION, measures=["RR", "NumRet"])


def earlier(report: Report, folder: Path) -> Earlier:
    report.write(folder / "baseline.json")
    return Earlier.read(folder / "baseline.json")


def test_the_same_again_has_not_fallen(tmp_path: Path) -> None:
    same = report([1] * 40)
    assert falls(same, earlier(same, tmp_path)) == []


def test_a_significant_fall_is_told_with_its_numbers(tmp_path: Path) -> None:
    (fall,) = falls(report([1] * 20 + [2] * 20), earlier(report([1] * 40), tmp_path))
    assert (fall.system, fall.measure, fall.before, fall.after) == ("hybrid", "RR", 1.0, 0.75)
    assert fall.p < 0.001
    assert str(fall).startswith("RR of hybrid on toy fell from 1.0000 to 0.7500 (p = 0.000")


def test_a_fall_that_may_be_chance_and_a_rise_pass(tmp_path: Path) -> None:
    before = earlier(report([1] * 20 + [2] * 20), tmp_path)
    assert falls(report([1] * 18 + [2] * 20 + [1, 2]), before) == []
    assert falls(report([1] * 40), before) == []


def test_what_only_one_report_has_is_not_compared(tmp_path: Path) -> None:
    before = earlier(report([1] * 40), tmp_path)
    with pytest.raises(UsageError, match=r"no system and measure in common .* it has hybrid"):
        falls(report([2] * 40, name="bm25"), before)


def test_other_judgements_are_refused(tmp_path: Path) -> None:
    report([1] * 40).write(tmp_path / "baseline.json")
    content = json.loads((tmp_path / "baseline.json").read_text())
    changed = {
        "is of toy dev, not of toy test": {**content, "split": "dev"},
        "was measured on other queries": {
            **content,
            "per_query": {"hybrid": {"RR": {"q0": 1.0}}},
        },
    }
    for message, other in changed.items():
        (tmp_path / "other.json").write_text(json.dumps(other))
        with pytest.raises(UsageError, match=message):
            falls(report([1] * 40), Earlier.read(tmp_path / "other.json"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"per_query": null}', '{"per_query": {}}'])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "baseline.json").write_text(content)
    with pytest.raises(DataError, match=r"baseline\.json is no report with values of each query"):
        Earlier.read(tmp_path / "baseline.json")


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*baseline\.json: No such file"):
        Earlier.read(tmp_path / "baseline.json")
