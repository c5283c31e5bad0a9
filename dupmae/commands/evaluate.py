"""`eval`: collections, indexed if need be, searched, measured, compared and reported."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection as Names
from collections.abc import Container, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dupmae.commands.bench import Bench, Encoders
from dupmae.commands.extras import require_extra
from dupmae.commands.options import json_option, model_option, threads_option
from dupmae.commands.systems import OWN, file_name, parse_systems
from dupmae.errors import GateError, UsageError

if TYPE_CHECKING:
    from dupmae.eval import Chapter, Collection, Earlier, Move, Report, Summary
    from dupmae.types import Document

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the command was given."""

    names: tuple[str, ...]
    split: str | None
    data_folders: tuple[Path, ...]
    systems: tuple[str, ...]
    measures: tuple[str, ...]
    baseline: str | None
    seed: int
    k: int
    out: Path
    gates: tuple[Path, ...]
    csv: Path | None
    per_query: Path | None
    latex: Path | None
    html: Path | None
    model: str | None
    threads: int | None
    as_json: bool


@click.command("eval")
@click.option(
    "--beir",
    "names",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A BEIR collection, a folder in that layout, irds:ID for an id of ir_datasets, or demo; "
    "several are averaged.",
)
@click.option("--split", help="Which judgements.  [default: test; msmarco: dev]")
@click.option(
    "--data",
    "data_folders",
    multiple=True,
    type=_FOLDER,
    help="A folder to look for the collection in, before $DUPMAE_DATA and the cache.",
)
@click.option(
    "--systems",
    multiple=True,
    metavar="LIST",
    help="hybrid, no-feedback, dense, sparse, fast, bm25, bm25-stem, bm25-lucene, rrf, minmax, "
    "convex, run:FILE, index:FOLDER, model:FOLDER, st:MODEL, st-sparse:MODEL; with commas or "
    "repeated.  [default: the first four]",
)
@click.option(
    "-m",
    "--measure",
    "measures",
    multiple=True,
    metavar="NAME",
    help="Such as nDCG@10; any of ir_measures.  [default: nDCG@10, R@100, RR@10, AP]",
)
@click.option(
    "--baseline", metavar="SYSTEM", help="What others are compared with.  [default: the first]"
)
@click.option(
    "--gate",
    "gates",
    multiple=True,
    type=_FILE,
    metavar="REPORT",
    help="An earlier report.json; exit 5 if a measure is significantly below it.",
)
@click.option("--seed", default=0, show_default=True, help="Of tests and intervals.")
@click.option("-k", default=1000, show_default=True, help="Hits a query that are measured.")
@click.option(
    "--out",
    type=_FOLDER,
    default=Path("runs/eval"),
    show_default=True,
    help="Where the index, the TREC runs and the JSON report go.",
)
@click.option("--html", type=_FILE, help="Write the report as one page that needs no network.")
@click.option("--csv", type=_FILE, help="Write a line a system and measure.")
@click.option("--per-query", type=_FILE, help="Write a CSV line a system and query.")
@click.option("--latex", type=_FILE, help="Write a table of the first measure.")
@model_option
@threads_option
@json_option
def eval_command(**options: Any) -> None:
    """Measure systems on collections, and say which differences are more than chance.

    An index that was made by the same encoder of the same corpus is used again. A query's own id
    never counts as a hit.
    """
    require_extra("eval", "eval")
    from dupmae.eval import MEASURES, Earlier, Summary, parts_of
    from dupmae.eval.metrics import check_measures

    settings = _Settings(**options)
    names = parse_systems(settings.systems)
    _check_baseline(settings.baseline, names or OWN)
    check_measures(settings.measures or MEASURES, settings.k)
    gates = [Earlier.read(path) for path in settings.gates]
    collections = [name for given in settings.names for name in given.split(",") if name]
    groups = {name: parts_of(name, settings.data_folders) for name in collections}
    run = _Evaluation(settings, names, Encoders(settings.model, settings.threads, names))
    summary = Summary({name: [run.report(part) for part in groups[name]] for name in groups})
    run.write(summary)
    _check_gates(gates, summary, settings.seed)


def _check_baseline(baseline: str | None, systems: Names[str]) -> None:
    if baseline and baseline not in systems:
        raise UsageError(f"the baseline {baseline!r} is not among the systems {', '.join(systems)}")


class _Evaluation:
    """The one pass over all collections; keeps what the outputs need."""

    def __init__(self, settings: _Settings, systems: Sequence[str], encoders: Encoders) -> None:
        self.settings = settings
        self.systems = systems
        self.encoders = encoders
        self.chapters: list[Chapter] = []

    def report(self, name: str) -> Report:
        """Evaluate one collection, print its table and write its report."""
        from dupmae.eval import Chapter, open_collection

        settings = self.settings
        collection = open_collection(name, split=settings.split, data_dirs=settings.data_folders)
        if collection.name in {chapter.report.collection for chapter in self.chapters}:
            raise UsageError(
                f"two collections are called {collection.name}; evaluate one at a time"
            )
        place = settings.out / collection.name.replace("/", "-")
        with ExitStack() as stack:
            bench = Bench(
                collection,
                place,
                self.encoders,
                stack,
                settings.k,
                settings.seed,
                hnsw="fast" in self.systems,
            )
            report, moves = self._measure(bench)
        documents = _texts(report, collection) if settings.html else {}
        self.chapters.append(Chapter(report, collection, moves, documents))
        report.write(place / "report.json")
        if not settings.as_json:
            _show(report, moves)
        return report

    def _measure(self, bench: Bench) -> tuple[Report, list[Move]]:
        from dupmae.eval import MEASURES, compare, evaluate, largest_moves
        from dupmae.eval.evaluate import SHALLOW
        from dupmae.eval.systems import share_found

        settings, collection = self.settings, bench.collection
        systems = bench.systems(self.systems)
        _check_baseline(settings.baseline, systems)
        baseline = settings.baseline or next(iter(systems), "")
        report = evaluate(
            systems,
            collection,
            k=settings.k,
            measures=settings.measures or MEASURES,
            run_files={name: bench.place / f"{file_name(name)}.trec" for name in systems},
            precision_recall=settings.html is not None,
        )
        if {"hybrid", "fast"} <= systems.keys():
            share = share_found(report.top["fast"], report.top["hybrid"])
            depth = min(settings.k, SHALLOW)
            bench.note(f"fast, at -k {settings.k}: {share:.2%} of the best {depth} of hybrid found")
        statistics = compare(report.per_query, baseline, seed=settings.seed)
        report = replace(report, statistics=statistics)
        moves = list(largest_moves(report, collection.queries, baseline, bench.explain))
        return replace(report, **_origin(bench, systems, moves)), moves

    def write(self, summary: Summary) -> None:
        """Write the files that were asked for, and what is to be said of all collections."""
        from dupmae.eval import html_page
        from dupmae.eval.files import write_text
        from dupmae.eval.report import plain_json
        from dupmae.eval.tables import averages_text, csv_text, latex_text, per_query_text

        settings = self.settings
        if settings.csv:
            write_text(settings.csv, csv_text(summary))
        if settings.per_query:
            write_text(settings.per_query, per_query_text(summary))
        if settings.latex:
            write_text(settings.latex, latex_text(summary))
        if settings.html:
            write_text(settings.html, html_page(summary, self.chapters))
        if settings.as_json:
            click.echo(plain_json(summary.to_dict()))
        elif averages := averages_text(summary):
            click.echo(averages)


def _texts(report: Report, collection: Collection) -> dict[str, Document]:
    """Return the documents that the page shows, in one pass over the corpus."""
    from dupmae.engine import read_corpus
    from dupmae.eval import shown_documents

    wanted = shown_documents(report, collection)
    return {
        document.doc_id: document
        for document in read_corpus(collection.corpus_path)
        if document.doc_id in wanted
    }


def _show(report: Report, moves: Sequence[Move]) -> None:
    from dupmae.eval.tables import moves_text, report_table

    click.echo(report_table(report))
    if moves:
        click.echo("\n" + moves_text(moves))
    click.echo()


def _origin(bench: Bench, systems: Container[str], moves: Sequence[Move]) -> dict[str, Any]:
    """Return what the report says of model, index, judgements and how it was made."""
    digest, ids = bench.corpus
    origin: dict[str, Any] = {}
    details: dict[str, Any] = {"documents": len(ids)}
    if bench.was_searched:
        encoder = bench.engine.encoder
        origin = {"model": encoder.name, "index": str(bench.place / "index")}
        weights = {name: own.weights for name, own in bench.own.items() if name in systems}
        details |= {"model_seal": encoder.seal, "weights": weights}
    details |= {
        "corpus_hash": digest,
        "judgements": bench.collection.judgements(ids),
        "notes": bench.notes,
        "moves": [asdict(move) for move in moves],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
    }
    return {**origin, "details": details}


def _check_gates(gates: Sequence[Earlier], summary: Summary, seed: int) -> None:
    """Raise a GateError if a measure is significantly below an earlier report's."""
    from dupmae.eval import falls

    reports = {report.collection: report for report in summary.reports}
    fallen = []
    for earlier in gates:
        if earlier.collection not in reports:
            raise UsageError(
                f"{earlier.path} is of {earlier.collection}, which was not evaluated; "
                f"there are {', '.join(reports)}"
            )
        fallen += falls(reports[earlier.collection], earlier, seed=seed)
    if fallen:
        raise GateError("; ".join(map(str, fallen)))
