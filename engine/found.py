"""The hits of an answer with their documents and snippets, looked up once for all who show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from dupmae.engine.search import SearchEngine
from dupmae.engine.snippets import Snippet, cut_snippets
from dupmae.results import Hit, SearchResult
from dupmae.types import Document


@dataclass(frozen=True, slots=True)
class Found:
    """A hit, ranked from 1 over all pages, with its document and, if asked for, its snippet."""

    rank: int
    hit: Hit
    document: Document
    snippet: Snippet | None

    @property
    def passage_text(self) -> str:
        """The passage that scores; "" of a document that is not split."""
        passage = self.hit.passage
        return "" if passage is None else self.document.text[passage.start : passage.end]


def look_up(
    engine: SearchEngine, result: SearchResult, *, offset: int = 0, with_snippets: bool = True
) -> list[Found]:
    """Return what an answer of the engine's present generation has found.

    Args:
        engine: what gave the answer.
        result: the answer.
        offset: what was left out before its first hit.
        with_snippets: whether to cut snippets.
    """
    view = engine.view
    ordinals = view.documents.ordinals(result.hits.doc_ids)
    documents = view.documents.get(ordinals)
    snippets: Sequence[Snippet | None] = [None] * len(documents)
    if with_snippets:
        snippets = cut_snippets(engine, result, view, ordinals, documents)
    return list(map(Found, count(offset + 1), result.hits, documents, snippets))
