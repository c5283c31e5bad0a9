"""What every framework's retriever does: ask an engine, and say of each hit how it was found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dupmae.engine import Filter, SearchEngine, look_up

FOUND = "dupmae"
"""The key of the metadata under which a hit's rank, score, parts and proof stand."""


@dataclass(frozen=True, slots=True)
class Found:
    """A document as frameworks want it: a text with an id, a score and metadata."""

    doc_id: str
    text: str
    score: float
    metadata: dict[str, Any]


def retrieve(
    engine: SearchEngine, query: str, k: int, where: Filter | str | None = None
) -> Iterator[Found]:
    """Yield the k best documents, best first.

    Their metadata are those of the index, with the `title` if they have none, and what was found
    out about the hit under the key `FOUND`.
    """
    result = engine.search(query, k, where=where)
    for each in look_up(engine, result, with_snippets=False):
        hit, document = each.hit, each.document
        found = {
            "rank": each.rank,
            "score": hit.score,
            "dense": hit.dense,
            "sparse": hit.sparse,
            "proven": result.proven,
        }
        metadata = {"title": document.title, **document.metadata, FOUND: found}
        yield Found(hit.doc_id, document.text, hit.score, metadata)
