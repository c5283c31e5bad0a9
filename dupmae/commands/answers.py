"""What is asked and what is answered: the record behind every form in which `search` answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dupmae.commands.display import Display, printable
from dupmae.commands.snippets import passage_text, snippet_lines
from dupmae.errors import UsageError

if TYPE_CHECKING:
    from dupmae.engine import FacetValue, Filter, Found, Key, SearchEngine
    from dupmae.results import SearchResult

FACET_VALUES = 10
"""Values of a facet that are shown; JSON has all."""

INDENT = "     "
"""As wide as a rank with its stop."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked beside the query: `k` hits after the best `offset`, and facets of `keys`.

    `mode` as in `SearchEngine.search_batch`.
    """

    k: int = 10
    offset: int = 0
    where: Filter | None = None
    keys: Sequence[Key] = ()
    mode: str = "exact"


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits with their documents, of `total` documents that match the request."""

    request: Request
    result: SearchResult
    found: Sequence[Found]
    total: int
    facets: Mapping[str, Sequence[FacetValue]]


def check_query(query: str) -> str:
    """Return a query that can be asked.

    Raises:
        UsageError: if it is blank, or held bytes that are not UTF-8.
    """
    if not query.strip():
        raise UsageError("the query is empty; give at least one word")
    try:
        query.encode()
    except UnicodeEncodeError:
        raise UsageError("the query is not UTF-8; type it on a terminal that is") from None
    return query


def find(engine: SearchEngine, query: str, request: Request) -> Answer:
    """Answer one query."""
    (answer,) = find_batch(engine, [check_query(query)], request)
    return answer


def find_batch(engine: SearchEngine, queries: Sequence[str], request: Request) -> list[Answer]:
    """Answer queries, in their order; all have the same facets, which no query changes."""
    where = request.where
    results = engine.search_batch(
        queries, request.k, offset=request.offset, where=where, mode=request.mode
    )
    total = engine.count(where)
    facets = engine.facets(request.keys, where) if request.keys else {}
    return [_answer(engine, request, result, total, facets) for result in results]


def answer_fields(answer: Answer) -> dict[str, Any]:
    """Return an answer as values of JSON."""
    from dupmae.engine import bound_field, facet_fields, hit_fields

    result = answer.result
    fields: dict[str, Any] = {
        "query": result.query,
        "proven": result.proven,
        "bound": bound_field(result.bound),
        "loss": result.loss,
        "depth": result.depth,
        "documents": answer.total,
        "hits": [hit_fields(found) for found in answer.found],
    }
    if answer.facets:
        fields["facets"] = facet_fields(answer.facets)
    return fields


def answer_text(answer: Answer, display: Display) -> str:
    """Return an answer as lines for eyes."""
    lines = []
    for found in answer.found:
        hit = found.hit
        parts = f"(dense {hit.dense:.4f}, sparse {hit.sparse:.4f})"
        lines.append(
            f"{display.paint(f'{found.rank:>3}.', bold=True)} "
            f"{display.paint(f'{hit.score:.4f}', fg='green', bold=True)}  "
            f"{display.paint(parts, dim=True)}  {display.paint(printable(hit.doc_id), fg='cyan')}"
            + (f"  {passage_text(hit.passage)}" if hit.passage else "")
        )
        lines += display.paragraph(found.document.title, indent=INDENT, bold=True)
        if found.snippet is not None:
            lines += snippet_lines(found.snippet, display, INDENT)
    lines += display.paragraph(_proof(answer), dim=True)
    for key, values in answer.facets.items():
        lines += display.paragraph(_facet(key, values))
    return "\n".join(lines)


def _facet(key: str, values: Sequence[FacetValue]) -> str:
    shown = [
        f"{json.dumps(found.value, ensure_ascii=False)} ({found.documents:,})"
        for found in values[:FACET_VALUES]
    ]
    more = [f"{len(values) - len(shown):,} more"] if len(values) > len(shown) else []
    return f"{key}: {', '.join(shown + more) or 'no values'}"


def _proof(answer: Answer) -> str:
    """Say in one line what is proven of an answer."""
    result = answer.result
    if not result.proven:
        return (
            f"approximate: {result.depth:,} candidates were scored; another document may score up "
            f"to {result.bound:.4f}, {result.loss:.4f} above the last of these"
        )
    documents = "documents" if answer.request.where is None else "documents that match"
    if not result.hits:
        return f"proven: there are no more than {answer.total:,} {documents}"
    rest = answer.total - len(result.hits) - answer.request.offset
    what = f"none of the other {rest:,} {documents} scores more" if rest else f"all {documents}"
    return f"proven: {what} (depth {result.depth:,})"


def _answer(
    engine: SearchEngine,
    request: Request,
    result: SearchResult,
    total: int,
    facets: Mapping[str, Sequence[FacetValue]],
) -> Answer:
    from dupmae.engine import look_up

    found = look_up(engine, result, offset=request.offset)
    return Answer(request, result, found, total, facets)
