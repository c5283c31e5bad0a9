"""Measure all that `docs/results.md` reports, and write its tables.

    python benchmarks/results.py --data DIR --minilm FOLDER

Indexes, MiniLM's vectors, runs and reports lie below `--out`; indexes and vectors are used again.
What stands between the two marks of the page is replaced, all else stays as it is. What MiniLM and
the untrained sum are says `benchmarks/untrained.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from untrained import write_runs

from dupmae.cli import main as dupmae
from dupmae.errors import DataError
from dupmae.eval import Statistics, compare
from dupmae.eval.files import write_text
from dupmae.eval.statistics import ALPHA
from dupmae.eval.tables import p_text

COLLECTIONS = {"scifact": "test", "nfcorpus": "test", "cranfield": "test", "squad": "dev"}
"""Those that are measured unless others are named, and which split; of others `test`."""
LABELS = {
    "hybrid": "**the sum with feedback** (what `search` does)",
    "no-feedback": "the sum",
    "dense": "its dense part",
    "sparse": "its sparse part",
    "rrf": "both parts by reciprocal ranks, k = 60",
    "minmax": "both parts by min-max scaling",
    "convex": "both parts by min-max scaling, weight chosen on another split",
    "bm25": "BM25",
    "bm25-stem": "BM25, stemmed",
    "minilm": "all-MiniLM-L6-v2, mean-pooled",
    "untrained-sum": "untrained sum of MiniLM and wordpiece BM25",
}
"""System → how the page names it. Those of files are last, each after its run's file name."""
OF_FILES = ("minilm", "untrained-sum")
BASELINES = ("bm25", "untrained-sum", "minilm")
MEASURE = "nDCG@10"
BEGIN = "<!-- Tables by benchmarks/results.py: begin -->"
END = "<!-- Tables by benchmarks/results.py: end -->"


@dataclass(frozen=True)
class Measured:
    """One collection's `report.json`, its systems called as in LABELS."""

    content: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Measured:
        """Read what `eval` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        for field in ("systems", "per_query"):
            content[field] = {_name(system): each for system, each in content[field].items()}
        return cls(content)

    @property
    def title(self) -> str:
        """Collection and split."""
        return f"{self.content['collection']} {self.content['split']}"

    @property
    def systems(self) -> list[str]:
        """Those of LABELS that were measured, in that order."""
        return [system for system in LABELS if system in self.content["systems"]]

    def against(self, baseline: str) -> Statistics:
        """Compare all systems with one of them by the first measure."""
        per_query = self.content["per_query"]
        return compare(
            {name: {MEASURE: per_query[name][MEASURE]} for name in self.systems}, baseline
        )


def _name(system: str) -> str:
    return Path(system.removeprefix("run:")).stem if system.startswith("run:") else system


def measure(name: str, data: Path, minilm: Path, out: Path) -> Measured:
    """Evaluate all systems on one collection."""
    split = COLLECTIONS.get(name, "test")
    runs = {path.stem: path for path in write_runs(name, data, minilm, out, split)}
    own = [system for system in LABELS if system not in OF_FILES]
    systems = ",".join([*own, *(f"run:{runs[system]}" for system in OF_FILES)])
    options = ["--beir", name, "--split", split, "--data", str(data), "--out", str(out)]
    options += ["--systems", systems, "--baseline", "bm25"]
    dupmae(["eval", *options], standalone_mode=False)
    return Measured.read(out / name / "report.json")


def page(reports: Sequence[Measured], command: str) -> str:
    """Return the tables of the page."""
    blocks = [
        _origin(reports, command),
        _summary(reports),
        "▲ and ▼: significantly above and below BM25, as in the tables below.",
        *(block for report in reports for block in (f"### {report.title}", _table(report))),
        f"Intervals are of the mean (95 %, bootstrap). The last three columns compare {MEASURE}, "
        "query by query: p of the paired randomisation test, with Holm's correction over the "
        f"column, and an arrow where p < {ALPHA:g}.",
        "### Proofs",
        _proofs(reports),
    ]
    return "\n\n".join(blocks) + "\n"


def _origin(reports: Sequence[Measured], command: str) -> str:
    first = reports[0].content
    rows = [["collection", "documents", "queries", "judgements", "corpus (hash)"]]
    for report in reports:
        content = report.content
        judged = content["judgements"]["judged"]
        sizes = (content["documents"], content["queries"], judged)
        rows.append([report.title, *(f"{n:,}" for n in sizes), f"`{content['corpus_hash'][:12]}`"])
    notes = [f"{r.content['collection']}: {note}." for r in reports for note in r.content["notes"]]
    weights = first["weights"]["hybrid"]
    made = (
        f"Made on {first['date'][:10]} by `{command}` with {first['model']} (seal "
        f"`{first['model_seal'][:12]}…`), weights {weights['dense_weight']:g} and "
        f"{weights['sparse_weight']:g}, feedback {weights['feedback']:g}, "
        f"{first['k']:,} hits a query."
    )
    return "\n\n".join([made, _markdown(rows), *notes])


def _summary(reports: Sequence[Measured]) -> str:
    rows = [[MEASURE, *(report.title for report in reports)]]
    statistics = [report.against("bm25") for report in reports]
    for system, label in LABELS.items():
        cells = []
        for report, against in zip(reports, statistics, strict=True):
            value = report.content["systems"].get(system, {}).get(MEASURE)
            arrow = _arrow(against, system)
            cells.append("" if value is None else f"{value:.4f}{arrow}".lstrip("0"))
        rows.append([label, *cells])
    return _markdown(rows)


def _table(report: Measured) -> str:
    statistics = {baseline: report.against(baseline) for baseline in BASELINES}
    intervals = statistics["bm25"].intervals
    measures = list(report.content["systems"]["bm25"])
    rows = [["system", *measures, f"{MEASURE}, interval", *(f"p: {LABELS[b]}" for b in BASELINES)]]
    for system in report.systems:
        values = report.content["systems"][system]
        lower, upper = intervals[system][MEASURE]
        row = [LABELS[system], *(f"{values[measure]:.4f}" for measure in measures)]
        row.append(f"{lower:.3f} … {upper:.3f}")
        row += [_p(statistics[baseline], system) for baseline in BASELINES]
        rows.append(row)
    return _markdown(rows)


def _arrow(statistics: Statistics, system: str) -> str:
    found = statistics.of(MEASURE, system)
    if found is None or not found.is_significant:
        return ""
    return " ▲" if found.difference > 0 else " ▼"


def _p(statistics: Statistics, system: str) -> str:
    found = statistics.of(MEASURE, system)
    return "" if found is None else p_text(found.p_randomisation_holm) + _arrow(statistics, system)


def _proofs(reports: Sequence[Measured]) -> str:
    rows = [["collection", "answers", "proven", "depth: median", "95 %", "maximum"]]
    for report in reports:
        for length, depth in report.content["depth"].items():
            depths = [f"{depth[name]:,}" for name in ("median", "p95", "max")]
            rows.append([report.title, f"top {int(length):,}", f"{depth['proven']:.1%}", *depths])
    return _markdown(rows)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    return "\n".join(_lines([head, ["---"] * len(head), *body]))


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in rows:
        yield f"| {' | '.join(row)} |"


def replaced(text: str, tables: str) -> str:
    """Return a page with new tables between its marks.

    Raises:
        DataError: if it has not exactly one pair of them.
    """
    before, begin, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not end or BEGIN in old or BEGIN in after or END in after:
        raise DataError(f"expected one line {BEGIN} and behind it one line {END}; add them")
    return f"{before}{begin}\n{tables}{end}{after}"


@click.command()
@click.argument("names", nargs=-1)
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--minilm", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/eval"))
@click.option("--page", "path", type=click.Path(path_type=Path), default=Path("docs/results.md"))
def main(names: Sequence[str], data: Path, minilm: Path, out: Path, path: Path) -> None:
    """Measure the named collections, or all four, and write the page's tables."""
    before = path.read_text(encoding="utf-8")
    replaced(before, "")  # a page without marks is refused before hours of work
    reports = [measure(name, data, minilm, out) for name in names or COLLECTIONS]
    command = " ".join(["python benchmarks/results.py", *names, "--data DIR --minilm FOLDER"])
    write_text(path, replaced(before, page(reports, command)))


if __name__ == "__main__":
    main()
