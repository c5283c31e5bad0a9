"""Facets count each value of every document that matches, by its type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder

from dupmae.engine import FacetValue, Key, SearchEngine, build_index, delete_documents
from dupmae.errors import UsageError
from dupmae.types import Document

METADATA: list[dict[str, Any]] = [
    {"year": 2019, "tags": ["sea", "sea", "ship"], "by": [{"name": "Ann"}, {"name": "Bob"}]},
    {"year": 2019.0, "tags": "sea", "by": {"name": "Ann"}},
    {"year": "2019", "tags": []},
    {"year": True, "tags": [["ship"]]},
    {"year": 1, "tags": None},
    {"year": "deleted", "tags": "sea"},
    {"tags": {"an": "object"}},
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("facets") / "my.index"
    documents = [Document(f"d{n}", "whale", "T" * (n % 2), data) for n, data in enumerate(METADATA)]
    for part in (documents[:3], documents[3:]):
        build_index(part, FakeEncoder(), folder)
    delete_documents(folder, ["d5"])
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        yield engine


def rows(values: tuple[FacetValue, ...]) -> list[tuple[str, int]]:
    return [(repr(found.value), found.documents) for found in values]


def test_values_are_counted_by_type_and_ordered_by_count_type_and_value(
    engine: SearchEngine,
) -> None:
    found = engine.facets("year, tags, by.name, title, absent, year")
    assert list(found) == ["year", "tags", "by.name", "title", "absent"]
    assert rows(found["year"]) == [("2019", 2), ("True", 1), ("1", 1), ("'2019'", 1)]
    assert rows(found["tags"]) == [("'sea'", 2), ("'ship'", 2), ("None", 1)]
    assert rows(found["by.name"]) == [("'Ann'", 2), ("'Bob'", 1)]
    assert rows(found["title"]) == [("''", 4), ("'T'", 2)]
    assert found["absent"] == ()


def test_only_what_matches_counts(engine: SearchEngine) -> None:
    found = engine.facets([Key(("tags",))], where="year = 2019")
    assert found == {"tags": (FacetValue("sea", 2), FacetValue("ship", 1))}
    assert engine.facets("tags", where="year = 3") == {"tags": ()}


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda engine: engine.facets("tags year"), "keys 'tags year' goes wrong"),
        (lambda engine: engine.facets(""), "expected a key"),
        (lambda engine: engine.facets("tags", where="tags"), "filter 'tags' goes wrong"),
    ],
)
def test_wrong_keys_or_filters_are_usage_errors(
    engine: SearchEngine, ask: Callable[[SearchEngine], object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        ask(engine)
