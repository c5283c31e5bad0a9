"""Facets: how many documents have each value at a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dupmae.engine.filters import Key, Value, type_of
from dupmae.indexes.documents import Labels

_ORDER = (type(None), bool, float, str)
"""Types of values in the order in which equal counts are listed."""


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value, and how many documents have it; its JSON type is part of it: 1 is not "1"."""

    value: Value
    documents: int


def count_values(
    labels: Iterable[Labels], keys: Sequence[Key]
) -> dict[str, tuple[FacetValue, ...]]:
    """Count values over documents, most frequent first, equal counts by type and value.

    A list counts once for each of its distinct elements; objects do not count.

    Returns:
        Of each key, as it is written in a filter, its values.
    """
    counts: dict[Key, Counter[tuple[type, Any]]] = {key: Counter() for key in keys}
    for document in labels:
        for key, counter in counts.items():
            values = key.values(document)
            counter.update({(type_of(v), v) for v in values if not isinstance(v, Mapping)})
    return {str(key): _ranked(counter) for key, counter in counts.items()}


def _ranked(counts: Counter[tuple[type, Any]]) -> tuple[FacetValue, ...]:
    def place(item: tuple[tuple[type, Any], int]) -> tuple[int, int, Any]:
        (kind, value), count = item
        return -count, _ORDER.index(kind), 0 if value is None else value

    return tuple(
        FacetValue(value, count) for (_, value), count in sorted(counts.items(), key=place)
    )
