"""Facts about reports as text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dupmae.eval import Collection, Recorded, Report, Summary, compare, evaluate
from dupmae.eval.tables import averages_text, csv_text, latex_text, p_text, report_table

QUERIES = [f"q{number}" for number in range(30)]
COLLECTION = Collection(
    "a_b", "test", dict.fromkeys(QUERIES, "?"), {q: {"good": 1} for q in QUERIES}, Path("corpus")
)


def ranked(good_at: int) -> Recorded:
    return Recorded(
        {q: [("good" if r == good_at else f"bad{r}", -float(r)) for r in (1, 2)] for q in QUERIES}
    )


def report(baseline: str = "second") -> Report:
    systems = {"first": ranked(1), "second": ranked(2), "same": ranked(2)}
    found = evaluate(systems, COLLECTION, measures=["RR", "NumRet"])
    found = replace(found, seconds=dict.fromkeys(systems, 0.25))
    return replace(found, statistics=compare(found.per_query, baseline))


def test_significant_differences_are_marked_and_the_columns_stay_aligned() -> None:
    lines = report_table(report()).splitlines()
    assert lines[:4] == [
        "a_b test       RR    NumRet  seconds",
        "first     1.0000▲  60.0000      0.25",
        "second    0.5000   60.0000      0.25",
        "same      0.5000   60.0000      0.25",
    ]
    worse = report_table(report(baseline="first"))
    assert "0.5000▼" in worse
    assert "1.0000 " in worse


def test_comparisons_have_difference_interval_p_and_counts() -> None:
    (line,) = [line for line in report_table(report()).splitlines() if "30/0/0" in line]
    assert " ".join(line.split()) == "first +0.5000 +0.5000 … +0.5000 0.0002 <.0001 30/0/0"
    (line,) = [line for line in report_table(report()).splitlines() if "0/30/0" in line]
    assert " ".join(line.split()) == "same +0.0000 +0.0000 … +0.0000 1.0000 1.0000 0/30/0"


def test_judgements_that_may_surprise_are_counted_and_others_not_named() -> None:
    counts = {"judged": 1200, "relevant": 30, "negative": 2, "repeated": 0}
    text = report_table(replace(report(), details={"judgements": counts}))
    assert "\njudgements: 1,200 judged, 30 relevant, 2 negative\n" in text


def test_a_p_value_is_never_shown_as_zero() -> None:
    assert [p_text(p) for p in (0.0, 0.00009, 0.0001, 0.04999)] == [
        "<.0001",
        "<.0001",
        "0.0001",
        "0.0500",
    ]


def test_csv_leaves_out_what_a_summed_measure_or_the_baseline_has_not() -> None:
    rows = [line.split(",") for line in csv_text(Summary({"a_b": [report()]})).splitlines()]
    head, *lines = rows
    by_name = {(row[2], row[3]): dict(zip(head, row, strict=True)) for row in lines}
    assert by_name["first", "RR"]["difference"] == "0.5"
    assert by_name["second", "RR"]["difference"] == ""
    assert by_name["second", "RR"]["lower"] == "0.5"
    assert by_name["first", "NumRet"]["lower"] == by_name["first", "NumRet"]["p_t"] == ""


def test_latex_escapes_names_and_marks_the_best_and_the_significant() -> None:
    assert latex_text(Summary({"a_b": [report()]})).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"RR & a\_b \\",
        r"\midrule",
        r"first & \textbf{1.0000}$^\dagger$ \\",
        r"second & 0.5000 \\",
        r"same & 0.5000 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_means_are_over_collections_each_the_mean_of_its_parts() -> None:
    one, two = report(), replace(report(), collection="other")
    worse = {name: {"RR": 0.1, "NumRet": 0.0} for name in one.systems}
    parts = [replace(two, systems=worse), replace(two, systems=worse)]
    summary = Summary({"a_b": [one], "other": parts})
    # The two parts are one collection: (1 + .1) / 2, not (1 + .1 + .1) / 3.
    assert summary.averages()["average"]["first"]["RR"] == (1.0 + 0.1) / 2
    assert summary.averages()["other"]["first"]["RR"] == 0.1
    assert "other, mean of 2" in averages_text(summary)
    assert "average, mean of 2" in averages_text(summary)
    assert averages_text(Summary({"a_b": [one]})) == ""
