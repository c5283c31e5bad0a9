"""How many random examples a test takes that asks for a number of its own."""

from __future__ import annotations

from hypothesis import settings


def examples(count: int) -> int:
    """Return the number, or in the quick suite no more than that suite takes."""
    quick = settings.get_profile("quick").max_examples
    return min(count, quick) if settings.default.max_examples == quick else count
