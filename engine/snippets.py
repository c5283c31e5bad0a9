"""Snippets: the passage of a document that carries most of the sparse part of its score.

The encoder says where in the text it has read which term; a term's part is its query weight ×
document weight, as in an explanation. A passage is worth the parts of the distinct terms in it,
since a term's part does not grow with every occurrence.

Left out: the dense part, which belongs to no place of the text, and marks such as `…`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from dupmae.engine.explain import Explanation
from dupmae.engine.filters import Filter
from dupmae.engine.search import SearchEngine
from dupmae.engine.view import View
from dupmae.engine.weights import Weights
from dupmae.errors import UsageError
from dupmae.results import Hit, SearchResult
from dupmae.types import (
    Bool,
    Document,
    Float32,
    Int32,
    LocatingEncoder,
    Passage,
    TermSpans,
    TextEncoder,
)

SNIPPET_LENGTH = 200
"""Characters of a snippet, at most: two or three lines."""

_BLANK = re.compile(r"\s")
_WORD_START = re.compile(r"(?<!\S)(?=\S)")
_WORD_END = re.compile(r"(?<=\S)(?!\S)")
_SENTENCE = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][)\"'”’]))\s+(?=\S)")
"""What lies between two sentences."""
_ROUNDING = 1 + 1e-9
"""A passage is better than an earlier one only by more than sums of parts may be off."""


class _Span(NamedTuple):
    """A place in a text where a term of the query stands, and the term's part."""

    start: int
    end: int
    term: int
    part: float


@dataclass(frozen=True, slots=True)
class Highlight:
    """Characters `start` to `end` of a snippet, and the sum of the parts of the terms there."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True, slots=True)
class Snippet:
    """A passage of a document's text, and what of it matched.

    Highlights are in order and apart. A term that occurs twice has its whole part at each place.
    `before` and `after`: whether the document's text goes on at that side.
    """

    text: str
    highlights: tuple[Highlight, ...]
    before: bool
    after: bool


def snippet(
    engine: SearchEngine,
    query: str | SearchResult | Explanation,
    doc_id: str,
    length: int = SNIPPET_LENGTH,
    *,
    where: Filter | str | None = None,
) -> Snippet:
    """Return the passage of one document that carries most of its score; see `snippets`."""
    (found,) = snippets(engine, query, [doc_id], length, where=where)
    return found


def snippets(
    engine: SearchEngine,
    query: str | SearchResult | Explanation,
    doc_ids: Sequence[str],
    length: int = SNIPPET_LENGTH,
    *,
    where: Filter | str | None = None,
) -> list[Snippet]:
    """Return, of each document, the passage of its text that carries most of its score.

    Where no term of the query stands in the text it is the beginning; so it is with an encoder that
    is no `LocatingEncoder`. It starts at a sentence if there is room, else at a word. Of a split
    document only the passage that scores can match, or gives the beginning.

    Args:
        engine: where the documents are.
        query: an answer or an explanation of the engine, or a query, which is then encoded with the
            engine's weights.
        doc_ids: documents, of the answer or not.
        length: characters of a snippet, at most.
        where: which documents feedback may learn from, if the query is to be encoded; the
            documents asked for are among them.

    Raises:
        DataError: if no document has one of these ids, or it does not match.
        UsageError: if the length is below 1, or the expression is wrong.
    """
    if length < 1:
        raise UsageError(f"a snippet needs a length of at least 1, found {length}")
    view = engine.select(where)  # one state throughout, whoever reloads meanwhile
    ordinals = view.documents.ordinals(doc_ids)
    documents = view.documents.get(ordinals)
    return cut_snippets(engine, query, view, ordinals, documents, length)


def cut_snippets(
    engine: SearchEngine,
    query: str | SearchResult | Explanation,
    view: View,
    ordinals: Sequence[int],
    documents: Sequence[Document],
    length: int = SNIPPET_LENGTH,
) -> list[Snippet]:
    """Do the second half of `snippets`: of documents that have these ordinals in a view."""
    asked = _Asked.of(engine, query, view)
    chosen = [asked.vector(view, *pair) for pair in zip(documents, ordinals, strict=True)]
    passages = view.passages(np.array(chosen, dtype=np.int64))
    read = [_read(*pair) for pair in zip(documents, passages, strict=True)]
    parts = [_Parts.of(asked.terms, view.sparse_row(vector)) for vector in chosen]
    is_cut = view.may_be_truncated(np.array(ordinals, dtype=np.int64))
    located = _located(engine.encoder, read, parts, is_cut)
    found = []
    for document, passage, part, row, spans in zip(
        documents, passages, read, parts, located, strict=True
    ):
        first = 0 if passage is None else passage.start
        matched = [] if spans is None else _matched(part, spans, row.products, first)
        found.append(_passage(document.text, matched, length, first))
    return found


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query: its dense vector (dim,), its terms with their weights, and how both are weighed.

    `named` has the passage, by its number, that an answer or explanation names of a document.
    """

    dense: Float32
    terms: tuple[Int32, Float32]
    weights: Weights
    named: Mapping[str, int]

    @classmethod
    def of(
        cls, engine: SearchEngine, query: str | SearchResult | Explanation, view: View
    ) -> _Asked:
        """Take what an answer or explanation knows of its query, or encode one."""
        known: Sequence[Hit | Explanation] = []
        terms = None
        if isinstance(query, SearchResult):
            known, terms = query.hits, query.terms
        elif isinstance(query, Explanation):
            known, terms = [query], query.query_terms
        if terms is None:
            text = query if isinstance(query, str) else query.query
            encoded = engine.encode([text], engine.weights, view)
            return cls(encoded.dense[0], encoded.sparse.row(0), engine.weights, {})
        named = {each.doc_id: each.passage.number for each in known if each.passage}
        # Of documents that are not named, the terms alone choose a passage.
        return cls(np.zeros(view.dim, np.float32), terms, engine.weights, named)

    def vector(self, view: View, document: Document, ordinal: int) -> int:
        """Return the ordinal of the vector by which a document scores."""
        vectors = view.vectors_of(ordinal)
        if document.doc_id in self.named:
            return int(vectors[self.named[document.doc_id] - 1])
        if len(vectors) == 1:
            return int(vectors[0])
        scores = self.weights.combine(*view.score(self.dense, *self.terms, vectors))
        return int(vectors[np.argmax(scores)])


@dataclass(frozen=True, slots=True)
class _Parts:
    """The terms (m,) that a query and a document share, and what each adds, by term."""

    terms: Int32
    products: Mapping[int, float]

    @classmethod
    def of(cls, query: tuple[Int32, Float32], document: tuple[Int32, Float32]) -> _Parts:
        shared, in_query, in_document = np.intersect1d(
            query[0], document[0], assume_unique=True, return_indices=True
        )
        products = query[1][in_query].astype(np.float64) * document[1][in_document]
        return cls(shared, dict(zip(shared.tolist(), products.tolist(), strict=True)))


def _located(
    encoder: TextEncoder, read: Sequence[Document], parts: Sequence[_Parts], is_cut: Bool
) -> Sequence[TermSpans | None]:
    """Return where terms stand in what is read of documents; None if the encoder cannot say."""
    if not isinstance(encoder, LocatingEncoder):
        return [None] * len(read)
    wanted = [None if cut else row.terms for row, cut in zip(parts, is_cut.tolist(), strict=True)]
    return encoder.locate_terms([document.content for document in read], wanted)


def _read(document: Document, passage: Passage | None) -> Document:
    """Return a document as the encoder has read it, of a split one the passage."""
    if passage is None:
        return document
    return replace(document, text=document.text[passage.start : passage.end])


def _matched(
    document: Document, spans: TermSpans, products: Mapping[int, float], first: int
) -> list[_Span]:
    """Return where in the document's text, its title left out, terms of the query stand.

    What was read of the text begins at its character `first`.
    """
    shift = _text_start(document)
    move = first - shift
    rows = zip(spans.starts.tolist(), spans.ends.tolist(), spans.terms.tolist(), strict=True)
    return [
        _Span(start + move, end + move, term, products[term])
        for start, end, term in rows
        if term in products and start >= shift
    ]


def _text_start(document: Document) -> int:
    """Return where in a document's content its text starts; below 0 if blanks are cut off it."""
    unstripped = f"{document.title} {document.text}"
    blanks = len(unstripped) - len(unstripped.lstrip())
    return len(document.title) + 1 - blanks


def _passage(text: str, spans: Sequence[_Span], length: int, first: int) -> Snippet:
    """Cut the best passage out of a text, of which `spans` is where it matched.

    Without a match it is what is read from the character `first` on.
    """
    beginning = len(text) - len(text[first:].lstrip())
    window = _best_window(text, spans, length)
    first, last = window or (beginning, beginning)
    start = _start(text, first, length - (last - first)) if window else beginning
    end = _end(text, last, min(len(text), start + length))
    return Snippet(
        text=text[start:end],
        highlights=_highlights(text, spans, start, end),
        before=bool(text[:start].strip()),
        after=bool(text[end:].strip()),
    )


def _best_window(text: str, spans: Sequence[_Span], length: int) -> tuple[int, int] | None:
    """Return the bounds of the words that match in the best passage; of equal ones the first."""
    bounds = [_word_bounds(text, span, length) for span in spans]
    best, window = 0.0, None
    inside: Counter[int] = Counter()
    worth, left = 0.0, 0
    for right, span in enumerate(spans):
        worth += 0.0 if inside[span.term] else span.part
        inside[span.term] += 1
        while bounds[right][1] - bounds[left][0] > length:
            inside[spans[left].term] -= 1
            worth -= 0.0 if inside[spans[left].term] else spans[left].part
            left += 1
        if worth > best * _ROUNDING:
            best, window = worth, (bounds[left][0], bounds[right][1])
    return window


def _word_bounds(text: str, span: _Span, length: int) -> tuple[int, int]:
    """Return where a piece's word starts and ends; of one too long, what fits of the piece."""
    before = text[max(0, span.start - length) : span.start]
    is_begun = before and not before[-1].isspace()
    start = span.start - (len(before.rsplit(maxsplit=1)[-1]) if is_begun else 0)
    far = min(len(text), span.start + length + 1)
    blank = _BLANK.search(text, span.start, far)
    end = far if blank is None else blank.start()
    if end - start <= length:
        return start, end
    return span.start, min(span.end, span.start + length)


def _start(text: str, first: int, slack: int) -> int:
    """Return where a passage starts that may have `slack` characters more than from `first` on."""
    earliest = max(0, first - slack)
    sentences = [match.end() for match in _SENTENCE.finditer(text, earliest, first + 1)]
    if sentences:
        return sentences[-1]
    if not text[:earliest].strip():
        earliest, slack = 0, 2 * first
    word = _WORD_START.search(text, max(earliest, first - slack // 2), first + 1)
    return first if word is None else word.start()


def _end(text: str, last: int, latest: int) -> int:
    """Return where the last word ends that is whole before `latest`; never before `last`."""
    found = (match.start() for match in _WORD_END.finditer(text, last, latest + 1))
    return max((end for end in found if end <= latest), default=latest)


def _highlights(text: str, spans: Sequence[_Span], start: int, end: int) -> tuple[Highlight, ...]:
    """Return what matches of a passage; pieces of a word that touch are one."""
    joined: list[Highlight] = []
    for span in spans:
        if not (start <= span.start and span.end <= end):
            continue
        found = Highlight(span.start - start, span.end - start, span.part)
        if joined and _is_one_word(text, start + joined[-1].end, span.start):
            known = joined.pop()
            stop = max(known.end, found.end)
            found = Highlight(known.start, stop, known.weight + found.weight)
        joined.append(found)
    return tuple(joined)


def _is_one_word(text: str, end: int, start: int) -> bool:
    """Say whether a piece that starts at `start` goes on with the word that one before ends in."""
    return start < end or (start == end and text[end - 1].isalnum() and text[start].isalnum())
