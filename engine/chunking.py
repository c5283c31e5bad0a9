"""Long documents as passages: where a text is split, and what the encoder reads of it.

`docs/index-format.md` says how passages are stored.

A passage holds up to `tokens` tokens of the text, and the title is read in front of each. It ends
at the last sentence end in the second half of what fits; where there is none at the last blank,
and else (Chinese without full stops, base64) behind a token. The next one begins up to `overlap`
tokens before that end: at the first sentence there, else word, else token. Where the overlap would
cut a sentence that fits without, it is left out.

A sentence ends at . ! ? or … before a blank, with the quotes and brackets behind them, at 。！？,
and at an empty line. Abbreviations are taken for ends too: a wrong one costs nothing but a passage
that could have been longer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from dupmae.errors import UsageError
from dupmae.types import Document, Int64, ReadingEncoder

_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[”’」』）]*|\n\s*?\n")


@dataclass(frozen=True, slots=True)
class Chunk:
    """How documents are split: passages of `tokens` tokens, with `overlap` of the one before."""

    tokens: int = 192
    overlap: int = 32

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise UsageError(f"a passage must have at least 1 token, found {self.tokens}")
        if not 0 <= self.overlap < self.tokens:
            raise UsageError(
                f"the overlap must be from 0 to {self.tokens - 1}, less than the {self.tokens} "
                f"tokens of a passage, found {self.overlap}"
            )

    def __str__(self) -> str:
        return f"passages of {self.tokens} tokens that overlap by {self.overlap}"


def check_chunk(chunk: Chunk, encoder: object) -> None:
    """Raise UsageError unless the encoder can read passages of that length whole."""
    if not isinstance(encoder, ReadingEncoder):
        raise UsageError(
            "documents can be split by an encoder that says where tokens lie; vectors made "
            "elsewhere are of whole documents"
        )
    room = _room(encoder)
    if chunk.tokens > room:
        raise UsageError(
            f"a passage may have up to {room} tokens, as the encoder reads no more; found "
            f"{chunk.tokens}"
        )


def read_passages(
    encoder: ReadingEncoder, chunk: Chunk, documents: Sequence[Document]
) -> tuple[Sequence[Sequence[int]], list[bool], list[Int64]]:
    """Return the token ids of all passages, which documents are truncated, and where they lie.

    A document is truncated if its title takes so much that a passage is not read whole: the title
    may take half of a passage's tokens, if no more is left.

    Returns:
        One list of ids a passage; one bool a document; of each document its passages' characters,
        (p, 2) int64, p ≥ 1.
    """
    room = _room(encoder)
    titles = encoder.token_spans([document.title for document in documents])
    texts = encoder.token_spans([document.text for document in documents])
    spans = []
    for document, title, tokens in zip(documents, titles, texts, strict=True):
        size = max(min(chunk.tokens, room - len(title)), (chunk.tokens + 1) // 2)
        spans.append(split(document.text, tokens, Chunk(size, min(chunk.overlap, size - 1))))
    ids, cut = encoder.read_documents(
        [
            replace(document, text=document.text[start:end]).content
            for document, passages in zip(documents, spans, strict=True)
            for start, end in passages.tolist()
        ]
    )
    borders = np.cumsum([0, *map(len, spans)]).tolist()
    truncated = [any(cut[a:b]) for a, b in pairwise(borders)]
    return ids, truncated, spans


def split(text: str, tokens: Int64, chunk: Chunk) -> Int64:
    """Return the characters of a text's passages, (p, 2) int64; the module says by which rule.

    Together they hold every token; the first begins at 0 and the last ends with the text.

    Args:
        text: any.
        tokens: (n, 2) int64, the characters of its tokens, in order.
        chunk: the longest passage and the overlap.
    """
    if len(tokens) <= chunk.tokens:
        return np.array([[0, len(text)]], dtype=np.int64)
    starts, ends = tokens[:, 0], tokens[:, 1]
    found = [match.end() for match in _SENTENCE_END.finditer(text)]
    sentences = np.unique(np.searchsorted(starts, found))
    words = np.flatnonzero(starts[1:] > ends[:-1]) + 1
    begin, end = 0, 0
    ranges = []
    while end < len(tokens):
        begin, end = _next(begin, end, len(tokens), (sentences, words), chunk)
        ranges.append((starts[begin], ends[end - 1]))
    spans = np.array(ranges, dtype=np.int64)
    spans[0, 0], spans[-1, 1] = 0, len(text)
    return spans


def _next(
    begin: int, end: int, count: int, borders: tuple[Int64, Int64], chunk: Chunk
) -> tuple[int, int]:
    """Return the tokens of the passage behind another one, of `begin` to `end` − 1 (0: of none)."""
    sentences, words = borders
    early = 0
    if end:
        least = max(end - chunk.overlap, begin + 1)
        early = _first(sentences, least, end) or _first(words, least, end) or least
    for start in (early, end):
        if count - start <= chunk.tokens:
            return start, count
        stop = _last(sentences, max(end, start + chunk.tokens // 2), start + chunk.tokens)
        if stop:
            return start, stop
    limit = early + chunk.tokens
    return early, _last(words, max(end, early + chunk.tokens // 2), limit) or limit


def _first(borders: Int64, low: int, high: int) -> int:
    """Return the first border from `low` to `high` − 1; 0 if there is none."""
    place = int(np.searchsorted(borders, low))
    return int(borders[place]) if place < len(borders) and borders[place] < high else 0


def _last(borders: Int64, low: int, high: int) -> int:
    """Return the last border from `low` + 1 to `high`; 0 if there is none."""
    place = int(np.searchsorted(borders, high, side="right")) - 1
    return int(borders[place]) if place >= 0 and borders[place] > low else 0


def _room(encoder: ReadingEncoder) -> int:
    """Return how many tokens of a text the encoder reads, special ones not counted."""
    (special,), _ = encoder.read_documents([""])
    return encoder.max_document_length - len(special)
