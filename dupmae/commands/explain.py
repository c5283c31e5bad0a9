"""`explain`: one score taken apart."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dupmae.commands.answers import check_query
from dupmae.commands.display import Display, printable
from dupmae.commands.options import (
    index_option,
    json_option,
    model_option,
    open_index,
    read_filter,
    threads_option,
    weight_options,
    where_option,
)
from dupmae.commands.snippets import passage_text, snippet_lines

if TYPE_CHECKING:
    from dupmae.engine import Explanation, Filter, SearchEngine, Snippet

LACKING_SHOWN = 10
"""Of the terms that a document lacks; an expanded query has dozens, `--json` lists them all."""


@click.command()
@click.argument("query")
@click.argument("doc_id")
@click.option("-k", default=10, show_default=True, help="How far behind rank K it is, if it is.")
@where_option
@index_option
@model_option
@weight_options
@threads_option
@json_option
def explain(
    query: str,
    doc_id: str,
    k: int,
    where: str | None,
    index_folder: Path,
    as_json: bool,
    **encoding: Any,
) -> None:
    """Take the score of document DOC_ID for QUERY apart: its dense part and each of its terms."""
    check_query(query)
    chosen = read_filter(where)
    with open_index(index_folder, **encoding) as engine:
        taken = take_apart(engine, query, doc_id, k, chosen)
    if as_json:
        click.echo(json.dumps(explained_fields(taken), ensure_ascii=False))
    else:
        click.echo(explanation_text(taken, Display.of_stdout()))


@dataclass(frozen=True, slots=True)
class Explained:
    """An explanation with the document's snippet, of `total` documents that match."""

    explanation: Explanation
    snippet: Snippet
    total: int


def take_apart(
    engine: SearchEngine, query: str, doc_id: str, k: int, where: Filter | None
) -> Explained:
    """Explain the score of one document."""
    from dupmae.engine import explain as explain_score
    from dupmae.engine import snippet

    explanation = explain_score(engine, query, doc_id, k=k, where=where)
    passage = snippet(engine, explanation, doc_id, where=where)
    return Explained(explanation, passage, engine.count(where))


def explained_fields(taken: Explained) -> dict[str, Any]:
    """Return an explanation with its snippet as values of JSON."""
    from dupmae.engine import explanation_fields

    fields = explanation_fields(taken.explanation, taken.total)
    return {**fields, "snippet": asdict(taken.snippet)}


def explanation_text(taken: Explained, display: Display) -> str:
    """Return an explanation as lines for eyes."""
    explanation = taken.explanation
    weights = explanation.weights
    lines = [
        f"{display.paint(printable(explanation.doc_id), fg='cyan')}: "
        f"rank {explanation.rank:,} of {taken.total:,}, "
        f"score {display.paint(f'{explanation.score:.4f}', fg='green', bold=True)}",
        f"  = {weights.dense:g} × dense {explanation.dense:.4f}"
        f" + {weights.sparse:g} × sparse {explanation.sparse:.4f}",
    ]
    if explanation.passage is not None:
        lines.append(f"  by its {passage_text(explanation.passage)}")
    if explanation.rank > explanation.k:
        lines += display.paragraph(
            f"not among the first {explanation.k:,}: {explanation.gap:.4f} below rank "
            f"{explanation.k:,} with its {explanation.kth_score:.4f}",
            indent="  ",
        )
    lines += snippet_lines(taken.snippet, display, "  ")
    if explanation.terms:
        width = max(len(term.text) for term in explanation.terms)
        lines.append(f"  {'term':<{width + 4}}   query × document = part of sparse")
        lines += [
            f"    {term.text:<{width + 2}} {term.query_weight:8.4f} × {term.document_weight:8.4f}"
            f" = {display.paint(f'{term.product:.4f}', bold=True)}"
            f"{'  borrowed from its neighbours' if term.borrowed else ''}"
            for term in explanation.terms
        ]
    if explanation.missing:
        heaviest = explanation.missing[:LACKING_SHOWN]
        absent = ", ".join(f"{term.text} ({term.query_weight:.4f})" for term in heaviest)
        rest = len(explanation.missing) - len(heaviest)
        more = f" and {rest} lighter" if rest else ""
        lines += display.paragraph(
            f"query terms that the document lacks: {absent}{more}", indent="  "
        )
    return "\n".join(lines)
