"""How text is laid out for eyes: wrapped and coloured on a terminal, bare elsewhere.

What a document or a file holds is shown with its control characters replaced: a terminal would
carry them out.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

_WIDEST = 100
"""Longer lines are hard to read, however wide a terminal is."""

_NARROWEST = 20

_ON, _OFF = "\x0e", "\x0f"
"""Around what is highlighted, until it is coloured; `printable` leaves none of them in a text."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls, marks that turn the direction of writing, and halves of surrogate pairs."""


def printable(text: str) -> str:
    """Replace white space by spaces and controls by �, a character by a character."""
    return _UNPRINTABLE.sub("�", re.sub(r"\s", " ", text))


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(map(_cells, text))


@dataclass(frozen=True, slots=True)
class Display:
    """Where text goes: lines of `width` columns, of any length if None."""

    width: int | None = None
    has_colours: bool = False

    @classmethod
    def of_stdout(cls) -> Display:
        """Describe stdout: bare unless it is a terminal, without colours under NO_COLOR."""
        if not sys.stdout.isatty():
            return cls()
        columns = shutil.get_terminal_size().columns
        is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        return cls(max(_NARROWEST, min(columns, _WIDEST)), not is_plain)

    def paint(self, text: str, **style: object) -> str:
        """Return a text in a style of `click.style`; as it is where there are no colours."""
        if not (self.has_colours and text and style):
            return text
        return click.style(text, **style)  # type: ignore[arg-type]

    def paragraph(
        self,
        text: str,
        highlights: Sequence[tuple[int, int]] = (),
        *,
        indent: str = "",
        **style: object,
    ) -> list[str]:
        """Lay a text out in lines.

        Args:
            text: any; each run of white space becomes one space.
            highlights: start and end of what to highlight, rising and apart.
            indent: before each line.
            style: of what is not highlighted, as in `click.style`.
        """
        marked = _mark(printable(text), highlights)
        room = None if self.width is None else max(1, self.width - len(indent))
        lines, is_on = [], False
        for line in _wrap(marked.split(), room):
            painted = ""
            for part in re.split(f"([{_ON}{_OFF}])", line):
                if part in (_ON, _OFF):
                    is_on = part == _ON
                else:
                    look: dict[str, object] = {"fg": "yellow", "bold": True} if is_on else style
                    painted += self.paint(part, **look)
            lines.append(indent + painted)
        return lines


def _mark(text: str, highlights: Sequence[tuple[int, int]]) -> str:
    pieces, end = [], 0
    for start, stop in highlights:
        pieces += [text[end:start], _ON, text[start:stop], _OFF]
        end = stop
    return "".join([*pieces, text[end:]])


def _wrap(words: Sequence[str], room: int | None) -> Iterator[str]:
    """Yield lines of at most `room` columns; a word that is longer is broken."""
    line: list[str] = []
    used = 0
    for word in words:
        for piece in [word] if room is None else _pieces(word, room):
            needed = cells(piece)
            if line and room is not None and used + 1 + needed > room:
                yield " ".join(line)
                line, used = [], 0
            used += needed + (1 if line else 0)
            line.append(piece)
    if line:
        yield " ".join(line)


def _pieces(word: str, room: int) -> Iterator[str]:
    piece, used = "", 0
    for character in word:
        if piece and used + _cells(character) > room:
            yield piece
            piece, used = "", 0
        piece += character
        used += _cells(character)
    yield piece


def _cells(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf", "Cc"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
