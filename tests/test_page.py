"""Facts about the page: whole, escaped, without network or script."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dupmae.eval import (
    Chapter,
    Collection,
    Explained,
    Recorded,
    Summary,
    compare,
    evaluate,
    html_page,
    largest_moves,
    shown_documents,
)
from dupmae.eval.browser import worst_queries
from dupmae.eval.plots import Dot, counted, curves, dot_plot, histogram, scatter
from dupmae.eval.proofs import Parts, Proofs
from dupmae.types import Document

EVIL = '<script>alert("x")</script>&amp;'
QRELS = {"q1": {"a": 1}, f"q{EVIL}": {"b": 2, "c": 1, "gone": 1, "d": 0}}
COLLECTION = Collection(
    "toy", "test", {query_id: f"about {query_id}" for query_id in QRELS}, QRELS, Path("corpus")
)
OURS = Recorded({"q1": [("a", 2.0)], f"q{EVIL}": [("x", 3.0), ("c", 2.0)]})
THEIRS = Recorded({"q1": [("b", 2.0), ("a", 1.0)], f"q{EVIL}": [("b", 3.0)]})
VOID = {"meta", "line"}


def chapter() -> Chapter:
    systems = {"ours": OURS, f"their{EVIL}": THEIRS}
    report = evaluate(systems, COLLECTION, measures=["RR", "AP"], precision_recall=True)
    report = replace(
        report,
        statistics=compare(report.per_query, "ours", samples=100),
        proofs={10: Proofs(2, (64, 256))},
        parts=Parts((3.0, 2.0), (1.0, 1.5), (2.0, 0.5)),
        details={"notes": [EVIL], "command": EVIL, "judgements": {"judged": 5}},
    )

    def explain(_: str, doc_id: str) -> Explained:
        return Explained(doc_id, 1, 2.0, 1.0, 1.0, ((EVIL, 1.0),))

    moves = list(largest_moves(report, COLLECTION.queries, "ours", explain))
    documents = {name: Document(name, f"text {EVIL}", title=EVIL) for name in "abcx"}
    return Chapter(report, COLLECTION, moves, documents)


@pytest.fixture(scope="module")
def page() -> str:
    found = chapter()
    return html_page(Summary({"toy": [found.report]}), [found])


class Tags(HTMLParser):
    """Remembers all tags, and checks that they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag


def test_every_tag_is_closed_and_nothing_runs_or_loads(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not tags.seen & {"script", "link", "img", "iframe", "object", "form"}
    assert (
        not {name for name in tags.attributes if name.startswith("on")} | {"src"} & tags.attributes
    )
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|url\(", page)


def test_whatever_a_collection_holds_is_escaped(page: str) -> None:
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;amp;") > 10


def test_the_page_shows_values_intervals_and_comparisons(page: str) -> None:
    # RR of ours: 1 and 1/2; of theirs: 1/2 and 1.
    assert page.count("0.7500") >= 4
    assert "Against ours, query by query" in page
    assert "1 / 0 / 1" in page
    assert "@media (prefers-color-scheme: dark)" in page


def test_the_page_has_a_precision_recall_curve_of_each_system(page: str) -> None:
    plot = page[page.index('aria-label="precision at recall (interpolated)"') :]
    assert plot[: plot.index("</svg>")].count("<polyline") == 2


def test_curves_start_at_0_and_end_at_1_and_a_ninth_is_dashed() -> None:
    svg = curves("t", {f"s{number}": [1.0, 0.5, 0.0] for number in range(9)}, "recall")
    lines = [line for line in ElementTree.fromstring(svg) if line.tag == "polyline"]
    assert lines[0].get("points") == "44.0,30.0 254.0,160.0 464.0,290.0"
    assert [line.get("class") for line in lines[7:]] == ["line line-7", "line line-0 dashed"]


def test_judged_documents_stand_beside_those_returned(page: str) -> None:
    worst = page[page.index("worst queries of ours") :]
    section = worst[: worst.index("</details>")]
    judged, returned = section.split("<h4>Returned</h4>")
    assert "Judged relevant (3)" in judged
    assert [judged.index(f"<b>{doc_id}</b>") for doc_id in ("b", "c", "gone")] == sorted(
        judged.index(f"<b>{doc_id}</b>") for doc_id in ("b", "c", "gone")
    )
    assert "grade 2, not in the first 2" in judged
    assert "grade 1, rank 2" in judged
    assert "<b>gone</b> (not in the corpus)" in judged
    assert "<b>d</b>" not in judged  # grade 0
    assert '<b class="relevant">c</b>' in returned
    assert "<b>x</b>" in returned


def test_the_worst_come_first_and_their_documents_are_asked_for() -> None:
    report = chapter().report
    assert worst_queries(report) == [f"q{EVIL}", "q1"]
    assert shown_documents(report, COLLECTION) == {"a", "b", "c", "x", "gone"}


def test_a_report_without_statistics_proofs_or_moves_has_a_page() -> None:
    report = evaluate({"ours": OURS}, COLLECTION, measures=["RR"])
    page = html_page(Summary({"toy": [report]}), [Chapter(report, COLLECTION, [], {})])
    assert "0.7500" in page
    assert "Against" not in page
    assert "moved most" not in page
    assert "Answers of" not in page


def drawn(svg: str, tag: str) -> list[dict[str, str]]:
    return [dict(element.attrib) for element in ElementTree.fromstring(svg).iter(tag)]


def test_dots_lie_on_their_axis_and_lines_span_their_intervals() -> None:
    svg = dot_plot("m", [Dot("a", 0.2, (0.0, 0.4)), Dot("b", 1.0, None, "base")])
    (first, second) = drawn(svg, "circle")
    (interval,) = [line for line in drawn(svg, "line") if "interval" in line["class"]]
    low, high, mean = float(interval["x1"]), float(interval["x2"]), float(first["cx"])
    assert mean == pytest.approx((low + high) / 2, abs=0.1)
    assert float(second["cx"]) - low == pytest.approx(5 * (mean - low), abs=0.3)
    assert second["class"] == "dot base"


def test_pairs_above_the_line_are_better() -> None:
    svg = scatter("m", [(0.0, 1.0, "up"), (1.0, 0.0, "down"), (0.5, 0.5, "same")], "base")
    up, down, same = drawn(svg, "circle")
    assert [pair["class"] for pair in (up, down, same)] == [
        "pair better",
        "pair worse",
        "pair base",
    ]
    assert float(up["cy"]) < float(same["cy"]) < float(down["cy"])
    assert float(up["cx"]) < float(same["cx"]) < float(down["cx"])


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-3.5, 2.0, 2.0, 7.25], [1e-9, 2e-9]])
def test_a_histogram_counts_every_value(values: list[float]) -> None:
    titles = re.findall(r"<title>.*?: (\d+)</title>", histogram("m", values))
    assert sum(map(int, titles)) == len(values)


def test_counted_values_stand_side_by_side_by_their_size() -> None:
    svg = counted("depth", [256, 64, 64, 1024])
    assert re.findall(r"<title>(.*?)</title>", svg) == ["64: 2", "256: 1", "1,024: 1"]
    heights = [float(bar["height"]) for bar in drawn(svg, "rect")]
    assert heights[0] == 2 * heights[1] == 2 * heights[2]
