"""The report as one HTML page, which needs no network: tables, plots, and the worst queries.

Everything that comes from a collection is escaped, and the page runs no script.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files

from dupmae.eval.browser import Chapter, moved_most, worst
from dupmae.eval.plots import Dot, counted, curves, dot_plot, histogram, scatter
from dupmae.eval.report import Report
from dupmae.eval.statistics import Comparison, Statistics
from dupmae.eval.summary import Summary
from dupmae.eval.tables import p_text


def html_page(summary: Summary, chapters: Sequence[Chapter]) -> str:
    """Return the whole page."""
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    names = [chapter.report.collection for chapter in chapters]
    title = f"Evaluation: {', '.join(names)}"
    links = "".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in names)
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<nav>{links}</nav>" if len(names) > 1 else "",
        *_averages(summary),
        *(section for chapter in chapters for section in _chapter(chapter)),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _averages(summary: Summary) -> Iterator[str]:
    for name, means in summary.averages().items():
        yield f"<h3>{escape(name)}, mean over collections</h3>"
        rows = [
            [escape(system), *(f"{value:.4f}" for value in values.values())]
            for system, values in means.items()
        ]
        yield _table(["", *summary.reports[0].measures], rows)


def _chapter(chapter: Chapter) -> Iterator[str]:
    report = chapter.report
    name = escape(report.collection)
    yield f'<h2 id="{name}">{name} {escape(report.split)}</h2>'
    yield from _origin(report)
    yield "<h3>Measures</h3>"
    yield _measures(report)
    yield _plots(_dots(report, measure) for measure in report.measures)
    if report.precision:
        yield _plots([curves("precision at recall (interpolated)", report.precision, "recall")])
    yield from _comparisons(report)
    yield from _distributions(report)
    yield from moved_most(chapter)
    yield from worst(chapter)


def _origin(report: Report) -> Iterator[str]:
    details = report.details
    facts = [f"{report.queries:,} queries, {report.k:,} hits each"]
    if "documents" in details:
        facts.append(f"{details['documents']:,} documents")
    if report.model:
        facts.append(f"model {report.model}, seal {details.get('model_seal', '')[:12]}…")
    facts.append(str(details.get("date", "")))
    yield f'<p class="soft">{escape("; ".join(fact for fact in facts if fact))}</p>'
    if "command" in details:
        yield f"<p><code>{escape(details['command'])}</code></p>"
    counts = details.get("judgements", {})
    judged = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
    yield f'<p class="soft">Judgements: {escape(judged)}.</p>' if judged else ""
    notes = [*details.get("notes", ()), *_proofs(report)]
    yield "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>" if notes else ""


def _proofs(report: Report) -> Iterator[str]:
    first = next(iter(report.systems))
    for length, proofs in report.proofs.items():
        depth = proofs.to_dict()
        yield (
            f"{first}, top {length:,}: {depth['proven']:.1%} of the answers proven to be exact, "
            f"at depth {depth['median']:,} (median), {depth['max']:,} (maximum)"
        )


def _measures(report: Report) -> str:
    def cell(system: str, measure: str) -> str:
        value = f"{report.systems[system][measure]:.4f}"
        interval = report.statistics and report.statistics.intervals[system].get(measure)
        bounds = f"<small>{interval[0]:.3f} – {interval[1]:.3f}</small>" if interval else ""
        kind = _kind(report, measure, system)
        sign = {"better": "▲", "worse": "▼"}.get(kind, "")
        return f'<span class="{kind}">{value}<span class="sign">{sign}</span></span>{bounds}'

    rows = [
        [escape(system), *(cell(system, measure) for measure in report.measures)]
        for system in report.systems
    ]
    table = _table(["", *report.measures], rows)
    if not (report.statistics and report.statistics.comparisons):
        return table
    return table + (
        '<p class="soft">Below each value its 95 % interval. ▲ ▼: significantly above or below '
        f"{escape(report.statistics.baseline)} (paired randomisation test with Holm's correction, "
        "p &lt; .05).</p>"
    )


def _comparison(report: Report, measure: str, system: str) -> Comparison | None:
    return report.statistics.of(measure, system) if report.statistics else None


def _kind(report: Report, measure: str, system: str) -> str:
    """Return the class of a value: how it stands to the baseline's."""
    if report.statistics and system == report.statistics.baseline:
        return "base"
    found = _comparison(report, measure, system)
    if found is None or not found.is_significant:
        return ""
    return "better" if found.difference > 0 else "worse"


def _dots(report: Report, measure: str) -> str:
    intervals = report.statistics.intervals if report.statistics else {}
    dots = [
        Dot(
            system,
            values[measure],
            intervals.get(system, {}).get(measure),
            _kind(report, measure, system),
        )
        for system, values in report.systems.items()
    ]
    return dot_plot(measure, dots)


def _comparisons(report: Report) -> Iterator[str]:
    if not (report.statistics and report.statistics.comparisons):
        return
    baseline, measure = report.statistics.baseline, report.measures[0]
    yield f"<h3>Against {escape(baseline)}, query by query</h3>"
    yield _comparison_table(report.statistics, measure)
    yield '<p class="soft">p: two-sided, paired, with Holm\'s correction.</p>'
    for other in report.measures[1:]:
        table = _comparison_table(report.statistics, other)
        yield f"<details><summary>{escape(other)}</summary>{table}</details>"
    others = [system for system in report.systems if system != baseline]
    yield _plots(_scatter(report, measure, baseline, system) for system in others)


def _comparison_table(statistics: Statistics, measure: str) -> str:
    rows = [
        [
            escape(each.system),
            f"{each.difference:+.4f}",
            f"{each.lower:+.4f} … {each.upper:+.4f}",
            p_text(each.p_randomisation_holm),
            p_text(each.p_t_holm),
            f"{each.wins} / {each.ties} / {each.losses}",
        ]
        for each in statistics.comparisons
        if each.measure == measure
    ]
    head = [measure, "difference", "95 % interval", "p", "p (t-test)", "won / tied / lost"]
    return _table(head, rows)


def _scatter(report: Report, measure: str, baseline: str, system: str) -> str:
    before, after = (report.per_query[name][measure] for name in (baseline, system))
    points = [
        (
            before[query_id],
            after[query_id],
            f"{query_id}: {before[query_id]:.3f} → {after[query_id]:.3f}",
        )
        for query_id in before
    ]
    return scatter(f"{measure} of {system}", points, baseline)


def _distributions(report: Report) -> Iterator[str]:
    plots = []
    if report.parts.scores:
        plots.append(histogram("score of the best hit", report.parts.scores))
    if shares := report.parts.dense_shares:
        plots.append(histogram("share of its dense part", shares))
    plots += [
        counted(f"depth of the proof, top {length:,}", proofs.depths)
        for length, proofs in report.proofs.items()
    ]
    if plots:
        yield f"<h3>Answers of {escape(next(iter(report.systems)))}</h3>"
        yield _plots(plots)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are HTML already, heads are not."""
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{heads}</tr>{lines}</table></div>'


def _plots(plots: Iterable[str]) -> str:
    return f'<div class="plots">{"".join(plots)}</div>'
