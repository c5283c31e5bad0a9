"""Texts before a network sees them: cut, cleaned, and gathered in batches of like lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from dupmae.types import Int64

CHARACTERS_A_TOKEN = 64
"""A text is read up to this many characters for each token that it may have.

English has about five. Without a limit a text of 10 MB would be tokenised whole to use a page.
"""
TEXTS_AT_ONCE = 64
"""A tokenizer keeps more than 100 bytes a token, also of what truncation cuts off, until it is done
with all texts it was given: 1,024 texts of 30,000 characters at once take 1.2 GB."""

LONGEST_TEXT = 100_000
"""Characters; what is longer is cut between words, so that memory stays bounded."""


def readable(text: str, max_length: int) -> str:
    """Return as much of a text as `max_length` tokens can need, fit for a tokenizer.

    Lone surrogates, which JSON may hold and no tokenizer takes, become question marks.
    """
    text = text[: max_length * CHARACTERS_A_TOKEN]
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def split_long(text: str) -> Iterator[str]:
    """Yield a text in pieces of at most `LONGEST_TEXT` characters, cut at spaces if it can be."""
    start = 0
    while len(text) - start > LONGEST_TEXT:
        end = text.rfind(" ", start + 1, start + LONGEST_TEXT)
        end = end if end > start else start + LONGEST_TEXT
        yield text[start:end]
        start = end
    yield text[start:]


def spans(text: str, tokenise: Callable[[str], Sequence[tuple[int, int]]]) -> Int64:
    """Return the characters of all tokens of a text, (n, 2), made piece by piece.

    Args:
        text: any.
        tokenise: returns the characters of a piece's tokens.
    """
    found, start = [np.zeros((0, 2), dtype=np.int64)], 0
    for piece in split_long(text):
        offsets = tokenise(readable(piece, len(piece)))
        found.append(np.array(offsets, dtype=np.int64).reshape(-1, 2) + start)
        start += len(piece)
    return np.concatenate(found)


def goes_on(text: str, max_length: int) -> bool:
    """Say whether `readable` leaves out anything but blanks."""
    rest = text[max_length * CHARACTERS_A_TOKEN :]
    return bool(rest) and not rest.isspace()


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield positions, longest texts first; a batch times its longest text fits the budget.

    The other way round, each batch would need a little more memory than the last one gave back:
    glibc then takes new memory for each, 350 MB more after 200 texts of 350 tokens.
    """
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
