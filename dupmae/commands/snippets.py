"""How commands show snippets, and the passages of split documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dupmae.commands.display import Display

if TYPE_CHECKING:
    from dupmae.engine import Snippet
    from dupmae.types import Passage

SHOWN = 0.2
"""A match is marked if it weighs at least this share of the snippet's heaviest; JSON has all."""


def passage_text(passage: Passage | None) -> str:
    """Say which passage of a split document scores; nothing of one that is not split."""
    if passage is None:
        return ""
    return f"passage {passage.number} (characters {passage.start:,} to {passage.end:,})"


def snippet_lines(snippet: Snippet, display: Display, indent: str) -> list[str]:
    """Return the passage as lines for eyes, its matches coloured where there are colours."""
    before = "… " if snippet.before else ""
    heaviest = max((match.weight for match in snippet.highlights), default=0.0)
    shown = [
        (len(before) + match.start, len(before) + match.end)
        for match in snippet.highlights
        if match.weight >= SHOWN * heaviest
    ]
    text = f"{before}{snippet.text}{' …' if snippet.after else ''}"
    return display.paragraph(text, shown, indent=indent)
