"""Filters: which documents count, by their metadata, id and title.

A filter is a value: a tree of comparisons under `And`, `Or` and `Not`. `str` writes it as an
expression, which `filter_grammar.parse_filter` reads back to an equal filter.

Its logic has two values. A comparison holds or does not; it does not where nothing lies at its key
or only values of another type, whatever its operator. `Not` turns that around, so `year != 2019` is
about documents with another year, and `not year = 2019` also about those without one. A list stands
for its elements, on the way to a value too, and a comparison holds if it does for any of them.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

import numpy as np

from dupmae.errors import UsageError
from dupmae.indexes.documents import DocumentStore, Labels
from dupmae.types import Document, Int64

Value = str | int | float | bool | None
"""What can be compared with; an int and a float are both numbers, true and false are not."""

OWN_KEYS = ("id", "title")
"""Keys that, alone and without quotes, name a document's own fields and not its metadata."""

NAME = r"[^\W\d]\w*(?:-\w+)*"
"""A key that needs no quotes, unless it is `not` or an own key that is meant for metadata."""

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Key:
    """Where values lie: at the end of a path of keys through the metadata.

    If it `is_own` the path is one of OWN_KEYS and names that field of the document.
    """

    path: tuple[str, ...]
    is_own: bool = False

    def __post_init__(self) -> None:
        is_path = isinstance(self.path, tuple) and self.path  # a string would be one of letters
        if not is_path or not all(isinstance(step, str) for step in self.path):
            raise UsageError(f'expected a tuple of keys such as ("year",), found {self.path!r}')
        if self.is_own and (len(self.path) > 1 or self.path[0] not in OWN_KEYS):
            raise UsageError(f"a key of its own is {' or '.join(OWN_KEYS)}, found {self.path!r}")

    def __str__(self) -> str:
        if self.is_own:
            return self.path[0]
        if len(self.path) == 1 and self.path[0] in OWN_KEYS:
            return json.dumps(self.path[0])
        return ".".join(map(_step_text, self.path))

    def found(self, document: Document | Labels) -> list[Any]:
        """Return what lies at the key, a list as one value; several only behind another list."""
        if self.is_own:
            return [document.doc_id if self.path[0] == "id" else document.title]
        values: list[Any] = [document.metadata]
        for step in self.path:
            values = [
                value[step]
                for value in _elements(values)
                if isinstance(value, Mapping) and step in value
            ]
        return values

    def values(self, document: Document | Labels) -> Iterator[Any]:
        """Yield the values at the key, the elements of lists for lists."""
        return _elements(self.found(document))


@dataclass(frozen=True, slots=True)
class Compare:
    """Some value at the key is of the given one's type and `operator` holds of the two.

    Strings are ordered by code points, numbers by size; true, false and null have no order. As
    nothing of null's type differs from null, `!=` takes no null.
    """

    key: Key
    operator: str
    value: Value
    kind: type = field(init=False, repr=False)  # else true would equal 1, as Python has it

    def __post_init__(self) -> None:
        if self.operator not in _OPERATORS:
            raise UsageError(f"expected one of {' '.join(_OPERATORS)}, found {self.operator!r}")
        _check_value(self.value)
        ordered = isinstance(self.value, str | int | float) and not isinstance(self.value, bool)
        if (self.operator not in ("=", "!=") and not ordered) or (
            self.operator == "!=" and self.value is None
        ):
            raise UsageError(f"{self.operator} cannot compare with {json.dumps(self.value)}")
        object.__setattr__(self, "kind", type_of(self.value))

    def __str__(self) -> str:
        return f"{self.key} {self.operator} {_value_text(self.value)}"

    def matches(self, document: Document | Labels) -> bool:
        """Say whether a document is one of those meant."""
        holds = _OPERATORS[self.operator]
        return any(
            type_of(value) is self.kind and holds(value, self.value)
            for value in self.key.values(document)
        )


@dataclass(frozen=True, slots=True)
class In:
    """Some value at the key equals one of those given, in its type too."""

    key: Key
    values: tuple[Value, ...]
    kinds: tuple[type, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.values:
            raise UsageError(f"{self.key} in (…) needs at least one value")
        for value in self.values:
            _check_value(value)
        object.__setattr__(self, "kinds", tuple(map(type_of, self.values)))

    def __str__(self) -> str:
        return f"{self.key} in ({', '.join(map(_value_text, self.values))})"

    def matches(self, document: Document | Labels) -> bool:
        """Say whether a document is one of those meant."""
        wanted = list(zip(self.kinds, self.values, strict=True))
        return any(
            type_of(value) is kind and value == other
            for value in self.key.values(document)
            for kind, other in wanted
        )


@dataclass(frozen=True, slots=True)
class Exists:
    """Something lies at the key, be it null or an empty list."""

    key: Key

    def __str__(self) -> str:
        return f"{self.key} exists"

    def matches(self, document: Document | Labels) -> bool:
        """Say whether a document is one of those meant."""
        return bool(self.key.found(document))


@dataclass(frozen=True, slots=True)
class And:
    """All of two or more filters hold."""

    filters: tuple[Filter, ...]

    def __post_init__(self) -> None:
        _check_several(self.filters)

    def __str__(self) -> str:
        return " and ".join(map(_part_text, self.filters))

    def matches(self, document: Document | Labels) -> bool:
        """Say whether a document is one of those meant."""
        return all(part.matches(document) for part in self.filters)


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of two or more filters holds."""

    filters: tuple[Filter, ...]

    def __post_init__(self) -> None:
        _check_several(self.filters)

    def __str__(self) -> str:
        return " or ".join(map(_part_text, self.filters))

    def matches(self, document: Document | Labels) -> bool:
        """Say whether a document is one of those meant."""
        return any(part.matches(document) for part in self.filters)


@dataclass(frozen=True, slots=True)
class Not:
    """A filter does not hold."""

    filter: Filter

    def __str__(self) -> str:
        return f"not {_part_text(self.filter)}"

    def matches(self, document: Document | Labels) -> bool:
        """Say whether a document is one of those meant."""
        return not self.filter.matches(document)


Filter = Compare | In | Exists | And | Or | Not


def matching(where: Filter, documents: DocumentStore, ordinals: Int64) -> Int64:
    """Return which of some documents of a store match, in their order."""
    matches = (where.matches(labels) for labels in documents.labels(ordinals))
    return ordinals[np.fromiter(matches, dtype=np.bool_, count=len(ordinals))]


def type_of(value: Any) -> type:
    """Return a JSON value's type, float for every number."""
    found = type(value)
    return float if found is int else found


def _elements(values: Iterable[Any]) -> Iterator[Any]:
    """Yield values, and for lists what they hold; a stack, as JSON may be nested deeply."""
    waiting = list(values)[::-1]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting += value[::-1]
        else:
            yield value


def _check_value(value: Value) -> None:
    if type(value) not in (str, int, float, bool, NoneType):  # NumPy's subclasses are none
        raise UsageError(f"expected a string, a number, true, false or null, found {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"expected a finite number, found {value}")


def _check_several(filters: tuple[Filter, ...]) -> None:
    if len(filters) < 2:
        raise UsageError(f"expected two filters or more to join, found {len(filters)}")


def _step_text(step: str) -> str:
    is_name = re.fullmatch(NAME, step) and step.lower() != "not"
    return step if is_name else json.dumps(step, ensure_ascii=False)


def _value_text(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _part_text(part: Filter) -> str:
    return f"({part})" if isinstance(part, And | Or) else str(part)
