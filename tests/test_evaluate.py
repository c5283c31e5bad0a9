"""Facts about evaluating a searcher and about the report."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dupmae.errors import DataError, UsageError
from dupmae.eval import Collection, Recorded, Report, Weighted, evaluate, own_systems, read_run
from dupmae.eval.proofs import Parts, Proofs
from dupmae.eval.tables import report_table
from dupmae.results import Hit, Hits, SearchResult

# Query text → document → (dense part, sparse part). The query "q2" is also a document.
PARTS = {
    "fox": {"a": (3.0, 0.0), "b": (2.0, 2.0), "c": (1.0, 5.0)},
    "whale": {"q2": (9.0, 9.0), "a": (1.0, 0.0), "b": (0.0, 2.0)},
}
COLLECTION = Collection(
    name="tiny",
    split="test",
    queries={"q1": "fox", "q2": "whale"},
    qrels={"q1": {"a": 1}, "q2": {"b": 1, "q2": 1}},
    corpus_path=Path("corpus.jsonl"),
)


@dataclass
class TableSearcher:
    """Answers from PARTS; the whale is proven only at a depth that grows with k."""

    asked: list[tuple[list[str], int]] = field(default_factory=list)

    def search_batch(
        self,
        queries: Sequence[str],
        k: int,
        *,
        dense_weight: float,
        sparse_weight: float,
        feedback: float,
        mode: str,
    ) -> list[SearchResult]:
        self.asked.append((list(queries), k))
        results = []
        for query in queries:
            hits = [
                Hit(doc_id, dense_weight * dense + sparse_weight * sparse, dense, sparse)
                for doc_id, (dense, sparse) in PARTS[query].items()
            ]
            hits.sort(key=lambda hit: -hit.score)
            proven = query == "fox" or dense_weight == 0 or k <= 10
            depth = 64 if query == "fox" else 100 + k
            columns = zip(*hits[:k], strict=True)
            results.append(SearchResult(query, Hits(*columns), proven, 0.0, depth))
        return results


def test_systems_are_measured_by_their_weights() -> None:
    report = evaluate(own_systems(TableSearcher()), COLLECTION, measures=["RR@10", "nDCG@10"])
    # Fox: hybrid c 6, b 4, a 3; dense a, b, c; sparse c, b, a. Whale, without itself: hybrid b 2,
    # a 1; dense a, b; sparse b, a.
    assert report.per_query["hybrid"]["RR@10"] == {"q1": 1 / 3, "q2": 1.0}
    assert report.per_query["dense"]["RR@10"] == {"q1": 1.0, "q2": 1 / 2}
    assert report.per_query["sparse"]["RR@10"] == {"q1": 1 / 3, "q2": 1.0}
    assert report.systems["hybrid"]["RR@10"] == pytest.approx((1 / 3 + 1) / 2)
    # The query's own id is judged relevant, but can never be a hit: 1 of 2 is found at rank 1.
    best = 1 + 1 / math.log2(3)
    assert report.per_query["hybrid"]["nDCG@10"]["q2"] == pytest.approx(1 / best)


def test_a_query_never_finds_itself_and_the_report_counts_it() -> None:
    searcher = TableSearcher()
    report = evaluate(own_systems(searcher), COLLECTION, k=2, measures=["P@2"])
    assert report.dropped_self_hits == {"hybrid": 1, "dense": 1, "sparse": 1}
    assert "query's own id is never counted as a hit: 3 dropped" in report_table(report)
    # One hit more than k is asked for, so that k remain: b of q2 comes third, and counts.
    assert [k for _, k in searcher.asked] == [3, 3, 3, 10]
    assert report.per_query["dense"]["P@2"]["q2"] == 1 / 2


def test_proofs_are_those_of_the_first_system_at_k_and_at_ten() -> None:
    report = evaluate(own_systems(TableSearcher()), COLLECTION, k=100)
    assert report.proven == 0.5  # the whale is not proven for hybrid at k = 100
    depth = report.to_dict()["depth"]
    assert depth["10"] == {"proven": 1.0, "median": 64, "p95": 110, "max": 110}
    assert depth["100"] == {"proven": 0.5, "median": 64, "p95": 201, "max": 201}
    other = evaluate({"sparse": Weighted(TableSearcher(), dense_weight=0.0)}, COLLECTION, k=100)
    assert other.proven == 1.0


def test_depths_are_ones_that_occurred() -> None:
    results = [SearchResult("q", Hits(), True, 0.0, depth) for depth in range(1, 101)]
    assert Proofs().joined(results).to_dict() == {
        "proven": 1.0,
        "median": 50,
        "p95": 95,
        "max": 100,
    }


def test_queries_are_asked_in_blocks_with_all_systems_on_a_block_in_turn() -> None:
    queries = {f"q{number}": "fox" for number in range(300)}
    qrels = {query_id: {"a": 1} for query_id in queries}
    collection = Collection("big", "test", queries, qrels, Path("corpus.jsonl"))
    searcher = TableSearcher()
    report = evaluate(own_systems(searcher), collection, measures=["RR@10"])
    assert [len(block) for block, _ in searcher.asked] == [256] * 4 + [44] * 4
    assert report.queries == len(report.per_query["dense"]["RR@10"]) == 300
    assert report.systems == {
        "hybrid": {"RR@10": pytest.approx(1 / 3)},
        "dense": {"RR@10": 1.0},
        "sparse": {"RR@10": pytest.approx(1 / 3)},
    }


def test_run_files_hold_what_was_measured(tmp_path: Path) -> None:
    files = {"hybrid": tmp_path / "hybrid.trec", "dense": tmp_path / "dense.trec"}
    evaluate(own_systems(TableSearcher()), COLLECTION, k=100, run_files=files)
    assert read_run(files["hybrid"]) == {
        "q1": [("c", 6.0), ("b", 4.0), ("a", 3.0)],
        "q2": [("b", 2.0), ("a", 1.0)],
    }
    assert files["dense"].read_text().startswith("q1 Q0 a 1 3.0 dupmae-dense\n")


def test_a_failed_search_leaves_no_run_file(tmp_path: Path) -> None:
    strange = replace(COLLECTION, queries={"q1": "fox", "q2": "unheard of"})
    with pytest.raises(KeyError, match="unheard of"):
        evaluate(own_systems(TableSearcher()), strange, run_files={"hybrid": tmp_path / "run.trec"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k must be 1 or more, found 0"),
        ({"k": 50}, "look at 100 hits a query, but only k = 50 are searched; raise k"),
        ({"measures": ["nonsense"]}, "knows no measure 'nonsense'"),
        ({"run_files": {"bm25": Path("x")}}, "'bm25'; systems are hybrid, dense, sparse"),
    ],
)
def test_settings_out_of_range_are_refused_before_any_search(
    settings: dict[str, object], message: str
) -> None:
    searcher = TableSearcher()
    with pytest.raises(UsageError, match=message):
        evaluate(own_systems(searcher), COLLECTION, **settings)  # type: ignore[arg-type]
    assert searcher.asked == []


def test_no_system_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no system was named"):
        evaluate({}, COLLECTION)


def test_a_system_without_proofs_is_measured_and_reports_none() -> None:
    recorded = Recorded({"q1": [("z", 2.0), ("a", 1.0)], "q2": [("q2", 5.0), ("b", 4.0)]})
    report = evaluate({"theirs": recorded}, COLLECTION, k=10, measures=["RR"])
    assert report.per_query["theirs"]["RR"] == {"q1": 1 / 2, "q2": 1.0}
    assert report.dropped_self_hits == {"theirs": 1}
    assert report.proven is None
    assert report.to_dict()["depth"] == {}
    assert "proven" not in report_table(report)


def test_the_report_keeps_the_first_hits_of_each_query_and_their_parts() -> None:
    report = evaluate(own_systems(TableSearcher()), COLLECTION, k=100)
    assert report.top["hybrid"]["q2"] == [("b", 2.0), ("a", 1.0)]
    # Of the short answers' best hits: c of the fox (1 + 5), and of the whale itself (9 + 9).
    assert report.parts == Parts((6.0, 18.0), (1.0, 9.0), (5.0, 9.0))
    assert report.parts.dense_shares == [1 / 6, 1 / 2]


def report_of(**fields: object) -> Report:
    report = evaluate(own_systems(TableSearcher()), COLLECTION, k=100)
    return replace(report, seconds=dict.fromkeys(report.seconds, 0.25), **fields)  # type: ignore[arg-type]


def test_the_json_form_starts_with_the_promised_keys_and_ends_with_the_details() -> None:
    report = report_of(model="dupmae-mini", index="tiny.index", details={"documents": 3})
    content = json.loads(report.to_json())
    promised = ["collection", "split", "systems", "proven", "model", "index"]
    assert list(content)[:6] == promised
    assert content["documents"] == 3
    assert list(content)[-1] == "documents"
    assert list(content["systems"]["sparse"]) == ["nDCG@10", "R@100", "RR@10", "AP"]
    assert content["self_hits"] == "a document with the query's own id is never counted as a hit"
    assert "per_query" not in content


def test_the_written_report_holds_each_query(tmp_path: Path) -> None:
    report_of().write(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["per_query"]["dense"]["RR@10"] == {"q1": 1.0, "q2": 0.5}


def test_a_measure_without_a_value_is_null_in_json() -> None:
    report = report_of(systems={"hybrid": {"X": math.nan}})
    assert json.loads(report.to_json())["systems"] == {"hybrid": {"X": None}}


def test_the_table_is_aligned() -> None:
    rr, ap = (1 / 3 + 1) / 2, (1 / 3 + 1 / 2) / 2
    report = report_of(
        systems={"hybrid": {"RR@10": rr, "AP": ap}, "dense": {"RR@10": 0.75, "AP": 0.625}}
    )
    lines = report_table(report)
    assert lines.splitlines()[:3] == [
        "tiny test   RR@10      AP  seconds",
        "hybrid     0.6667  0.4167     0.25",
        "dense      0.7500  0.6250     0.25",
    ]
    assert "hybrid, top 10: 100.0% proven, at depth 64 (median)" in lines


def test_a_run_file_that_cannot_be_written_stops_before_any_search(tmp_path: Path) -> None:
    searcher = TableSearcher()
    with pytest.raises(DataError, match="it is a folder"):
        evaluate(own_systems(searcher), COLLECTION, run_files={"hybrid": tmp_path})
    assert searcher.asked == []


def test_precision_is_interpolated_at_eleven_levels_of_recall_if_asked_for() -> None:
    collection = Collection("toy", "test", {"q": "text"}, {"q": {"a": 1, "b": 1}}, Path("corpus"))
    recorded = Recorded({"q": [("x", 4.0), ("a", 3.0), ("y", 2.0), ("b", 1.0)]})
    # The first relevant document is at rank 2, the second at rank 4: precision 1/2 at both, and
    # without the second one 0 beyond half of all.
    half = Recorded({"q": [("x", 4.0), ("a", 3.0)]})
    systems = {"whole": recorded, "half": half}
    asked = {"k": 10, "measures": ["IPrec@0.5"]}
    report = evaluate(systems, collection, **asked, precision_recall=True)  # type: ignore[arg-type]
    assert report.precision == {"whole": (0.5,) * 11, "half": (0.5,) * 6 + (0.0,) * 5}
    assert report.systems["half"] == {"IPrec@0.5": 0.5}
    assert evaluate(systems, collection, **asked).precision == {}  # type: ignore[arg-type]
