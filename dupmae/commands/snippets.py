"""How commands show snippets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from dupmae.engine import Snippet

SHOWN = 0.2
"""A match is marked if it weighs at least this share of the snippet's heaviest; JSON has all."""


def snippet_json(snippet: Snippet) -> dict[str, Any]:
    """Return the passage and its matches."""
    highlights = [
        {"start": match.start, "end": match.end, "weight": match.weight}
        for match in snippet.highlights
    ]
    return {"text": snippet.text, "highlights": highlights}


def snippet_text(snippet: Snippet) -> str:
    """Return the passage in one line, its matches bold; a file or a pipe gets no bold."""
    pieces, at = [], 0
    heaviest = max((match.weight for match in snippet.highlights), default=0.0)
    for match in snippet.highlights:
        if match.weight >= SHOWN * heaviest:
            pieces.append(snippet.text[at : match.start])
            pieces.append(click.style(snippet.text[match.start : match.end], bold=True))
            at = match.end
    pieces.append(snippet.text[at:])
    line = " ".join("".join(pieces).split())
    return f"{'… ' if snippet.before else ''}{line}{' …' if snippet.after else ''}"
