"""The passage of a document that has most of what its terms add to a score."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from dupmae.server.models import Highlight, Snippet

SNIPPET = 240
"""Characters of a passage."""
_READ = 100_000
"""Characters of a text that are looked at; an encoder reads fewer."""
_WORD = re.compile(r"\w+")


def snippet_of(text: str, parts: Mapping[str, float]) -> Snippet:
    """Cut a passage of a text.

    Args:
        text: of a document.
        parts: what each of the document's terms adds to the score, by the vocabulary's entry.

    Returns:
        About SNIPPET characters, whole words, and where in them the terms are.
    """
    found = [
        Highlight(start=word.start(), end=word.end(), weight=weight)
        for word in _WORD.finditer(text[:_READ])
        if (weight := _weight(word.group(), parts)) > 0
    ]
    # With a little of what comes before, from the beginning of a word.
    start = text.rfind(" ", 0, max(0, _best_start(found) - SNIPPET // 4)) + 1
    end = _end(text, start)
    inside = [
        Highlight(start=each.start - start, end=each.end - start, weight=each.weight)
        for each in found
        if each.start >= start and each.end <= end
    ]
    return Snippet(text=text[start:end], highlights=inside)


def _weight(word: str, parts: Mapping[str, float]) -> float:
    """Return the parts of the terms that a word is made of; 0 if it is not made of them alone."""
    rest = "".join(
        each
        for each in unicodedata.normalize("NFD", word.lower())
        if not unicodedata.combining(each)
    )
    weight, mark = 0.0, ""
    while rest:
        size = next((n for n in range(len(rest), 0, -1) if mark + rest[:n] in parts), 0)
        if not size:
            return 0.0
        weight += parts[mark + rest[:size]]
        rest, mark = rest[size:], "##"
    return weight


def _best_start(found: list[Highlight]) -> int:
    """Return where the passage begins whose terms weigh most, each counted once by its weight."""
    best, start, first = 0.0, 0, 0
    for last, each in enumerate(found):
        while found[first].start < each.end - SNIPPET * 3 // 4:
            first += 1
        weight = sum({part.weight for part in found[first : last + 1]})
        if weight > best:
            best, start = weight, found[first].start
    return start


def _end(text: str, start: int) -> int:
    """Return where a passage ends that begins at `start`: after a whole word if there is one."""
    end = start + SNIPPET
    if end >= len(text):
        return len(text)
    space = text.rfind(" ", start, end)
    return space if space > start else end
