"""`search` and `explain`: asking an index, and taking one score apart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dupmae.commands.options import (
    index_option,
    json_option,
    load_encoder,
    model_option,
    open_engine,
    threads_option,
    weight_options,
)
from dupmae.errors import UsageError

if TYPE_CHECKING:
    from dupmae.engine import Explanation, FacetValue, Filter, SearchEngine
    from dupmae.types import Document, Hit, Passage, SearchResult

where_option = click.option(
    "--where",
    metavar="FILTER",
    help="Only documents whose metadata match, such as 'year >= 2019 and journal = \"Nature\"'.",
)

FACET_VALUES = 10
"""Values of a facet that are shown; --json has all."""

SNIPPET = 200
"""Characters of a document's text that are shown."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What `search` shows: hits with their documents, of `total` documents that match."""

    result: SearchResult
    documents: list[Document]
    total: int
    offset: int
    where: Filter | None
    facets: Mapping[str, Sequence[FacetValue]]

    def rows(self) -> Iterator[tuple[int, Hit, Document]]:
        """Yield rank, hit and document."""
        pairs = zip(self.result.hits, self.documents, strict=True)
        for rank, (hit, document) in enumerate(pairs, start=self.offset + 1):
            yield rank, hit, document


@click.command()
@click.argument("query")
@click.option("-k", default=10, show_default=True, help="How many documents to return.")
@click.option("--offset", default=0, help="How many of the best to leave out, for the next page.")
@where_option
@click.option("--facets", metavar="KEYS", help="Count the values at these keys: 'journal,year'.")
@index_option
@model_option
@weight_options
@threads_option
@json_option
def search(
    query: str,
    k: int,
    offset: int,
    where: str | None,
    facets: str | None,
    index_folder: Path,
    as_json: bool,
    **encoding: Any,
) -> None:
    """Find the k documents that score highest for QUERY, exactly and proven."""
    from dupmae.engine import parse_keys

    chosen, keys = _filter(where), [] if facets is None else parse_keys(facets)
    with _open(query, index_folder, **encoding) as engine:
        result = engine.search(query, k, offset=offset, where=chosen)
        ids = [hit.doc_id for hit in result.hits]
        documents = engine.documents.get([engine.documents.ordinal(doc_id) for doc_id in ids])
        counts = engine.facets(keys, chosen) if keys else {}
        answer = _Answer(result, documents, engine.count(chosen), offset, chosen, counts)
        click.echo((_answer_json if as_json else _answer_text)(answer))


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

    chosen = _filter(where)
    with _open(query, index_folder, **encoding) as engine:
        explanation = take_apart(engine, query, doc_id, k=k, where=chosen)
        show = _explanation_json if as_json else _explanation_text
        click.echo(show(explanation, engine.count(chosen)))


def _filter(where: str | None) -> Filter | None:
    """Read a filter, so that a wrong one is said before anything is loaded."""
    from dupmae.engine import parse_filter

    return None if where is None else parse_filter(where)


def _open(
    query: str,
    folder: Path,
    *,
    model: str | None,
    threads: int | None,
    **weights: float | None,
) -> SearchEngine:
    if not query.strip():
        raise UsageError("the query is empty; give at least one word")
    from dupmae.engine import read_manifest

    read_manifest(folder)  # a missing index is said before the encoder is loaded
    return open_engine(folder, load_encoder(model, threads), **weights)


def _answer_json(answer: _Answer) -> str:
    hits = [
        {
            "rank": rank,
            "id": hit.doc_id,
            "score": hit.score,
            "dense": hit.dense,
            "sparse": hit.sparse,
            "title": document.title,
            "text": document.text,
            "metadata": dict(document.metadata),
            **_passage_json(hit.passage, _found_text(hit, document)),
        }
        for rank, hit, document in answer.rows()
    ]
    result = answer.result
    shown: dict[str, Any] = {
        "query": result.query,
        "proven": result.proven,
        "bound": result.bound if math.isfinite(result.bound) else None,
        "depth": result.depth,
        "documents": answer.total,
        "hits": hits,
    }
    if answer.facets:
        shown["facets"] = {
            key: [{"value": found.value, "documents": found.documents} for found in values]
            for key, values in answer.facets.items()
        }
    return json.dumps(shown, ensure_ascii=False)


def _passage_json(passage: Passage | None, text: str) -> dict[str, Any]:
    """Return what is added about a split document: the passage that scores, with its text."""
    return {} if passage is None else {"passage": {**asdict(passage), "text": text}}


def _answer_text(answer: _Answer) -> str:
    lines = []
    for rank, hit, document in answer.rows():
        lines.append(
            f"{rank:>3}. {hit.score:.4f}  (dense {hit.dense:.4f}, sparse {hit.sparse:.4f})  "
            f"{hit.doc_id}{_passage_text(hit.passage)}"
        )
        text = " ".join(_found_text(hit, document).split())
        lines += [f"     {line}" for line in (document.title, _shortened(text)) if line]
    lines.append(_proof_text(answer))
    for key, values in answer.facets.items():
        shown = [
            f"{json.dumps(found.value, ensure_ascii=False)} ({found.documents:,})"
            for found in values[:FACET_VALUES]
        ]
        more = [f"{len(values) - len(shown):,} more"] if len(values) > len(shown) else []
        lines.append(f"{key}: {', '.join(shown + more) or 'no values'}")
    return "\n".join(lines)


def _shortened(text: str) -> str:
    return text if len(text) <= SNIPPET else f"{text[:SNIPPET].rsplit(' ', 1)[0]} …"


def _found_text(hit: Hit, document: Document) -> str:
    """Return the text that scores: the passage, or all of it."""
    passage = hit.passage
    return document.text if passage is None else document.text[passage.start : passage.end]


def _passage_text(passage: Passage | None) -> str:
    if passage is None:
        return ""
    return f"  passage {passage.number} (characters {passage.start:,} to {passage.end:,})"


def _proof_text(answer: _Answer) -> str:
    result = answer.result
    if not result.proven:
        return f"not proven: another document may score up to {result.bound:.4f}"
    documents = "documents" if answer.where is None else "documents that match"
    if not result.hits:
        return f"proven: there are no more than {answer.total:,} {documents}"
    rest = answer.total - len(result.hits) - answer.offset
    what = f"none of the other {rest:,} {documents} scores more" if rest else f"all {documents}"
    return f"proven: {what} (list depth {result.depth})"


def _explanation_json(explanation: Explanation, total: int) -> str:
    return json.dumps(
        {
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
            **_passage_json(explanation.passage, explanation.passage_text),
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
                {"term": term.text, "query_weight": term.query_weight}
                for term in explanation.missing
            ],
        },
        ensure_ascii=False,
    )


def _explanation_text(explanation: Explanation, total: int) -> str:
    weights = explanation.weights
    lines = [
        f"{explanation.doc_id}: rank {explanation.rank:,} of {total:,}, "
        f"score {explanation.score:.4f}",
        f"  = {weights.dense:g} × dense {explanation.dense:.4f}"
        f" + {weights.sparse:g} × sparse {explanation.sparse:.4f}",
    ]
    if explanation.passage is not None:
        text = " ".join(explanation.passage_text.split())
        lines.append(f"  by its{_passage_text(explanation.passage)}: {_shortened(text)}")
    if explanation.rank > explanation.k:
        lines.append(
            f"  not among the first {explanation.k:,}: {explanation.gap:.4f} below rank "
            f"{explanation.k:,} with its {explanation.kth_score:.4f}"
        )
    if explanation.terms:
        width = max(len(term.text) for term in explanation.terms)
        lines.append(f"  {'term':<{width + 4}}   query × document = part of sparse")
        lines += [
            f"    {term.text:<{width + 2}} {term.query_weight:8.4f} × {term.document_weight:8.4f}"
            f" = {term.product:.4f}"
            for term in explanation.terms
        ]
    if explanation.missing:
        absent = ", ".join(f"{term.text} ({term.query_weight:.4f})" for term in explanation.missing)
        lines.append(f"  query terms that the document lacks: {absent}")
    return "\n".join(lines)
