"""`explain`: one score taken apart."""

from __future__ import annotations

import json
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

if TYPE_CHECKING:
    from dupmae.engine import Explanation


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
    from dupmae.engine import explain as take_apart

    check_query(query)
    chosen = read_filter(where)
    with open_index(index_folder, **encoding) as engine:
        explanation = take_apart(engine, query, doc_id, k=k, where=chosen)
        total = engine.count(chosen)
    if as_json:
        click.echo(json.dumps(explanation_fields(explanation, total), ensure_ascii=False))
    else:
        click.echo(explanation_text(explanation, total, Display.of_stdout()))


def explanation_fields(explanation: Explanation, total: int) -> dict[str, Any]:
    """Return an explanation, of `total` documents that match, as values of JSON."""
    return {
        "query": explanation.query,
        "id": explanation.doc_id,
        "rank": explanation.rank,
        "documents": total,
        "k": explanation.k,
        "kth_score": explanation.kth_score,
        "gap": explanation.gap,
        "score": explanation.score,
        "dense_weight": explanation.weights.dense,
        "sparse_weight": explanation.weights.sparse,
        "feedback": explanation.weights.feedback,
        "dense": explanation.dense,
        "sparse": explanation.sparse,
        "terms": [
            {
                "term": term.text,
                "query_weight": term.query_weight,
                "document_weight": term.document_weight,
                "product": term.product,
            }
            for term in explanation.terms
        ],
        "missing": [
            {"term": term.text, "query_weight": term.query_weight} for term in explanation.missing
        ],
    }


def explanation_text(explanation: Explanation, total: int, display: Display) -> str:
    """Return an explanation, of `total` documents that match, as lines for eyes."""
    weights = explanation.weights
    lines = [
        f"{display.paint(printable(explanation.doc_id), fg='cyan')}: "
        f"rank {explanation.rank:,} of {total:,}, "
        f"score {display.paint(f'{explanation.score:.4f}', fg='green', bold=True)}",
        f"  = {weights.dense:g} × dense {explanation.dense:.4f}"
        f" + {weights.sparse:g} × sparse {explanation.sparse:.4f}",
    ]
    if explanation.rank > explanation.k:
        lines += display.paragraph(
            f"not among the first {explanation.k:,}: {explanation.gap:.4f} below rank "
            f"{explanation.k:,} with its {explanation.kth_score:.4f}",
            indent="  ",
        )
    if explanation.terms:
        width = max(len(term.text) for term in explanation.terms)
        lines.append(f"  {'term':<{width + 4}}   query × document = part of sparse")
        lines += [
            f"    {term.text:<{width + 2}} {term.query_weight:8.4f} × {term.document_weight:8.4f}"
            f" = {display.paint(f'{term.product:.4f}', bold=True)}"
            for term in explanation.terms
        ]
    if explanation.missing:
        absent = ", ".join(f"{term.text} ({term.query_weight:.4f})" for term in explanation.missing)
        lines += display.paragraph(f"query terms that the document lacks: {absent}", indent="  ")
    return "\n".join(lines)
