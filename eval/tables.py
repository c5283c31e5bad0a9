"""Reports as text: tables for a terminal, CSV for programs, LaTeX for papers."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from textwrap import shorten

from dupmae.eval.moves import Move
from dupmae.eval.report import SELF_HITS, Report
from dupmae.eval.statistics import Comparison, Statistics
from dupmae.eval.summary import Summary

_MOVES = 3  # shown; the written report has more, of every system
_QUERY_WIDTH = 90

_LATEX_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def report_table(report: Report) -> str:
    """Return a report for people: measures, comparisons, then what was proven and dropped.

    ▲ and ▼ stand behind values that differ significantly from the baseline's.
    """
    rows = [[f"{report.collection} {report.split}", *report.measures, "seconds"]]
    for system, values in report.systems.items():
        cells = [
            f"{values[measure]:.4f}{_mark(report.statistics, measure, system)}"
            for measure in report.measures
        ]
        rows.append([system, *cells, f"{report.seconds[system]:.2f}"])
    blocks = [_aligned(rows)]
    if report.statistics and report.statistics.comparisons:
        blocks.append(_comparisons(report.measures[0], report.statistics))
    return "\n\n".join([*blocks, "\n".join(_notes(report))])


def _mark(statistics: Statistics | None, measure: str, system: str) -> str:
    """Return what stands behind a value; all are one wide where there are statistics."""
    if not (statistics and statistics.comparisons):
        return ""
    comparison = statistics.of(measure, system)
    if comparison is None or not comparison.is_significant:
        return " "
    return "▲" if comparison.difference > 0 else "▼"


def _comparisons(measure: str, statistics: Statistics) -> str:
    rows = [[f"{measure} − {statistics.baseline}", "", "95 % interval", "p", "p (t-test)", "w/t/l"]]
    rows += [
        [
            each.system,
            f"{each.difference:+.4f}",
            f"{each.lower:+.4f} … {each.upper:+.4f}",
            p_text(each.p_randomisation_holm),
            p_text(each.p_t_holm),
            f"{each.wins}/{each.ties}/{each.losses}",
        ]
        for each in statistics.comparisons
        if each.measure == measure
    ]
    return _aligned(rows)


def p_text(p: float) -> str:
    """Return a p value with as many digits as it is worth."""
    return "<.0001" if p < 0.0001 else f"{p:.4f}"


def moves_text(moves: Sequence[Move]) -> str:
    """Return the queries of the first compared system that moved most, and what stood first."""
    lines = []
    for move in [move for move in moves if move.system == moves[0].system][:_MOVES]:
        query = shorten(move.query, _QUERY_WIDTH, placeholder=" …")
        lines += [
            f"{move.difference:+.4f}  {move.system}, query {move.query_id}: {query}",
            f"         first: {move.top or 'nothing that our index has'}",
            f"         baseline's: {move.baseline_top or 'nothing that our index has'}",
        ]
    return "\n".join(["moved most:", *lines]) if lines else ""


def _notes(report: Report) -> Iterator[str]:
    first = next(iter(report.systems))
    yield f"{report.queries:,} queries, {report.k:,} hits each"
    for length, proofs in report.proofs.items():
        depth = proofs.to_dict()
        yield (
            f"{first}, top {length:,}: {depth['proven']:.1%} proven, at depth "
            f"{depth['median']:,} (median), {depth['p95']:,} (95 %), {depth['max']:,} (maximum)"
        )
    if counts := report.details.get("judgements"):
        found = (f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count)
        yield f"judgements: {', '.join(found)}"
    yield f"{SELF_HITS}: {sum(report.dropped_self_hits.values()):,} dropped"
    if report.statistics and report.statistics.comparisons:
        yield (
            f"p: paired randomisation test and t-test against {report.statistics.baseline}, "
            "two-sided, Holm's correction; intervals: bootstrap; w/t/l: queries won, tied, lost"
        )


def averages_text(summary: Summary) -> str:
    """Return the means over collections for people; nothing for a lone one."""
    tables = []
    for name, means in summary.averages().items():
        number = len(summary.groups.get(name, summary.groups))
        rows = [[f"{name}, mean of {number}", *summary.reports[0].measures]]
        rows += [
            [system, *(f"{value:.4f}" for value in values.values())]
            for system, values in means.items()
        ]
        tables.append(_aligned(rows))
    return "\n\n".join(tables)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )


def csv_text(summary: Summary) -> str:
    """Return a line a collection, system and measure, with all statistics."""
    head = ("collection", "split", "system", "measure", "value", "lower", "upper", "baseline")
    tests = ("difference", "p_randomisation", "p_t", "p_randomisation_holm", "p_t_holm")
    compared = (*tests, "wins", "ties", "losses")
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*head, *compared])
    for report in summary.reports:
        statistics = report.statistics
        for system, values in report.systems.items():
            for measure, value in values.items():
                interval = statistics.intervals[system].get(measure) if statistics else None
                found = statistics.of(measure, system) if statistics else None
                row = [report.collection, report.split, system, measure, value]
                row += interval or ("", "")
                row.append(statistics.baseline if statistics else "")
                row += [getattr(found, name, "") for name in compared]
                writer.writerow(row)
    return stream.getvalue()


def per_query_text(summary: Summary) -> str:
    """Return a CSV line a collection, system and query, with a column a measure."""
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    measures = summary.reports[0].measures
    writer.writerow(["collection", "split", "system", "query", *measures])
    for report in summary.reports:
        for system, values in report.per_query.items():
            for query_id in values[measures[0]]:
                cells = [values[measure][query_id] for measure in measures]
                writer.writerow([report.collection, report.split, system, query_id, *cells])
    return stream.getvalue()


def latex_text(summary: Summary) -> str:
    """Return one booktabs table of the first measure: a row a system, a column a collection.

    The best of a column is bold; † marks what differs significantly from the baseline.
    """
    measure = summary.reports[0].measures[0]
    systems = list(dict.fromkeys(name for report in summary.reports for name in report.systems))
    columns = {
        report.collection: {
            system: (values[measure], _of(report, measure, system))
            for system, values in report.systems.items()
        }
        for report in summary.reports
    }
    for name, means in summary.averages().items():
        columns[name] = {system: (values[measure], None) for system, values in means.items()}
    head = " & ".join(map(_latex, [measure, *columns])) + r" \\"
    rows = [
        " & ".join([_latex(system), *(_latex_cell(column, system) for column in columns.values())])
        + r" \\"
        for system in systems
    ]
    lines = [r"\begin{tabular}{l" + "r" * len(columns) + "}", r"\toprule", head, r"\midrule"]
    return "\n".join([*lines, *rows, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _of(report: Report, measure: str, system: str) -> Comparison | None:
    return report.statistics.of(measure, system) if report.statistics else None


def _latex_cell(column: dict[str, tuple[float, Comparison | None]], system: str) -> str:
    if system not in column:
        return "--"
    value, comparison = column[system]
    text = f"{value:.4f}"
    if text == f"{max(other for other, _ in column.values()):.4f}":
        text = rf"\textbf{{{text}}}"
    return text + (r"$^\dagger$" if comparison and comparison.is_significant else "")


def _latex(text: str) -> str:
    return "".join(_LATEX_SPECIAL.get(character, character) for character in text)
