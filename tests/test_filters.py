"""Filters as values and as expressions: what they mean, and what is no filter."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dupmae.engine import (
    And,
    Compare,
    Exists,
    Filter,
    In,
    Key,
    Not,
    Or,
    parse_filter,
    read_corpus,
)
from dupmae.engine.filter_grammar import MOST_NESTED
from dupmae.errors import UsageError
from dupmae.types import Document

PAPER = Document(
    "p1",
    "text",
    "On Whales",
    {
        "year": 2019,
        "journal": "Nature",
        "open": True,
        "doi": None,
        "tags": ["sea", "ship", 7],
        "none": [],
        "authors": [{"name": "Ann", "age": 30}, {"name": "Bob"}],
        "publisher": {"country": "DK", "odd key.x": 1.5},
        "id": 5,
        "not": "x",
    },
)


@pytest.mark.parametrize(
    ("text", "is_meant"),
    [
        ("year = 2019", True),
        ("year = 2019.0", True),
        ('year = "2019"', False),
        ('year != "2019"', False),
        ("year != 2018", True),
        ("year != 2019", False),
        ("not year != 2018", False),
        ("year > 2018 and year < 2020", True),
        ("year >= 2020 or year <= 2018", False),
        ('journal >= "Nat" and journal < "Nb"', True),
        ("open = true", True),
        ("open = 1", False),
        ("open != false", True),
        ("doi = null", True),
        ("doi exists", True),
        ("none exists", True),
        ("none = null", False),
        ("absent exists", False),
        ("absent != 1", False),
        ("not absent = 1", True),
        ("absent = null", False),
        ('tags = "ship"', True),
        ("tags = 7", True),
        ('tags != "ship"', True),
        ('not tags = "ship"', False),
        ('tags in ("x", 7)', True),
        ('year in ("2019", true, null)', False),
        ("open in (1)", False),
        ('authors.name = "Bob"', True),
        ("authors.age >= 30", True),
        ("authors.age exists", True),
        ("authors.place exists", False),
        ("journal.x exists", False),
        ('publisher.country = "DK"', True),
        ('publisher."odd key.x" = 1.5', True),
        ("publisher exists", True),
        ('publisher = "DK"', False),
        ('id = "p1"', True),
        ("id = 5", False),
        ('"id" = 5', True),
        ('title >= "On"', True),
        ("\"not\" = 'x'", True),
        ('YEAR exists or NOT Journal exists AND tags IN ("sea")', True),
    ],
)
def test_an_expression_means_what_the_documentation_says(text: str, is_meant: bool) -> None:
    assert parse_filter(text).matches(PAPER) is is_meant


def documentation() -> tuple[str, list[tuple[str, bool]]]:
    """Return the corpus line of docs/filters.md, and which filters it says hold of it."""
    text = (Path(__file__).parents[1] / "docs" / "filters.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"```json\n(.*?)\n```", text)
    rows = re.findall(r"^\| `(.+?)` \| (yes|no) \|", text, flags=re.MULTILINE)
    return line, [(expression, holds == "yes") for expression, holds in rows]


@pytest.mark.parametrize(("text", "is_meant"), documentation()[1])
def test_the_filters_of_the_documentation_hold_as_it_says(
    tmp_path: Path, text: str, is_meant: bool
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(documentation()[0], encoding="utf-8")
    (document,) = read_corpus(corpus)
    assert parse_filter(text).matches(document) is is_meant


def test_the_python_of_the_documentation_runs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "filters.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(code, "filters.md", "exec"), {})


def test_and_binds_closer_than_or_and_not_closer_than_both() -> None:
    a, b, c = (Exists(Key((name,))) for name in "abc")
    assert parse_filter("a exists or b exists and c exists") == Or((a, And((b, c))))
    assert parse_filter("(a exists or b exists) and c exists") == And((Or((a, b)), c))
    assert parse_filter("not a exists and not not b exists") == And((Not(a), Not(Not(b))))


@pytest.mark.parametrize(
    ("text", "character", "words"),
    [
        ("year >= Nature", 9, "expected a string in quotes or a number, found 'Nature'"),
        ("", 1, "expected a key, not or (, found the end"),
        ("year", 5, "found the end"),
        ("year = ", 8, "found the end"),
        ("(a = 1", 7, "expected ), found the end"),
        ("a = 1)", 6, "expected the end, found ')'"),
        ("a = 1 orb = 2", 7, "expected and, or or the end, found 'orb'"),
        ("a in ()", 7, "expected a string in quotes, a number, true, false or null, found ')'"),
        ("a == 1", 4, "found '='"),
        ("a < null", 5, "expected a string in quotes or a number"),
        ("a > true", 5, "expected a string in quotes or a number"),
        ("a != null", 6, "expected a string in quotes, a number, true or false"),
        ('a = "open', 5, "found '\"'"),
        ('a = "\\q"', 5, "JSON's escapes"),
        ("a = 1e999", 5, "a number of ordinary size"),
        ("a = " + "9" * 5000, 5, "a number of ordinary size"),
        ("a = 01", 5, "found '01'"),
        ("a; drop table", 2, "found ';'"),
        ("a = 1\nand ☃ = 2", 11, "expected a key, not or (, found '☃'"),
        (f"{'a = 1 and ' * 50}b ~ 2", 503, "found '~'"),
    ],
)
def test_a_wrong_expression_is_one_line_with_the_place_and_what_was_expected(
    text: str, character: int, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_filter(text)
    message = str(caught.value)
    assert f"goes wrong at character {character}:" in message
    assert words in message
    assert "\n" not in message
    assert len(message) < 300


def test_nesting_has_a_limit_that_parentheses_alone_do_not_count_for() -> None:
    deepest = "not " * (MOST_NESTED - 1) + "a exists"
    assert parse_filter(deepest).matches(PAPER) is (MOST_NESTED % 2 == 0)
    assert parse_filter("(" * 5000 + "a exists" + ")" * 5000) == Exists(Key(("a",)))
    with pytest.raises(UsageError, match=f"nested more than {MOST_NESTED} deep"):
        parse_filter(f"not {deepest}")


@pytest.mark.parametrize(
    "make",
    [
        lambda key: Compare(key, "~", 1),
        lambda key: Compare(key, "<", None),
        lambda key: Compare(key, ">=", True),
        lambda key: Compare(key, "!=", None),
        lambda key: Compare(key, "=", float("nan")),
        lambda key: Compare(key, "=", float("inf")),
        lambda key: Compare(key, "=", [1]),
        lambda key: Compare(key, "=", np.float64(1)),
        lambda key: In(key, ()),
        lambda key: In(key, ({},)),
        lambda key: And((Exists(key),)),
        lambda key: Or(()),
        lambda key: Key(()),
        lambda key: Key("year"),
        lambda key: Key((3,)),
        lambda key: Key(("year",), is_own=True),
        lambda key: Key(("id", "x"), is_own=True),
    ],
)
def test_what_no_expression_can_say_cannot_be_made(make: Callable[[Key], Any]) -> None:
    with pytest.raises(UsageError):
        make(Key(("a",)))


def test_filters_are_values_in_which_true_is_not_one() -> None:
    one, true = Compare(Key(("a",)), "=", 1), Compare(Key(("a",)), "=", True)
    assert one != true
    assert In(one.key, (1, False)) != In(one.key, (True, 0))
    assert one == Compare(Key(("a",)), "=", 1.0)
    assert len({one, true, Compare(Key(("a",)), "=", 1)}) == 2
    with pytest.raises(FrozenInstanceError):
        one.value = 2  # type: ignore[misc]


TEXTS = st.one_of(st.sampled_from(["a", "b", "id", "title", "not", "and", "x-y", "é"]), st.text())
SCALARS = st.one_of(
    TEXTS, st.integers(-3, 3), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
)
ANY_VALUE = st.one_of(SCALARS, st.booleans(), st.none())
KEYS = st.one_of(
    st.lists(TEXTS, min_size=1, max_size=3).map(lambda path: Key(tuple(path))),
    st.sampled_from(["id", "title"]).map(lambda name: Key((name,), is_own=True)),
)


def filters(keys: st.SearchStrategy[Key], values: st.SearchStrategy[Any]):
    ordered = values.filter(lambda v: v is not None and not isinstance(v, bool))
    leaves = st.one_of(
        st.builds(Compare, keys, st.just("="), values),
        st.builds(Compare, keys, st.just("!="), values.filter(lambda v: v is not None)),
        st.builds(Compare, keys, st.sampled_from(["<", "<=", ">", ">="]), ordered),
        st.builds(In, keys, st.lists(values, min_size=1, max_size=3).map(tuple)),
        st.builds(Exists, keys),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
            st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        ),
        max_leaves=6,
    )


@settings(max_examples=examples(200), deadline=None)
@given(filters(KEYS, ANY_VALUE))
@example(Compare(Key(("not",)), "=", "\ud800 \u2028\"'\\"))
@example(Compare(Key(("id",)), "=", -0.0))
@example(Compare(Key(("a",)), "=", 10**400))
def test_a_filter_written_out_reads_back_as_itself(where: Filter) -> None:
    assert parse_filter(str(where)) == where


# ---- a slow reference, written from docs/filters.md ------------------------------------------

FEW_KEYS = st.sampled_from(["a", "b", "id"])
FEW_VALUES = st.sampled_from(["x", "y", "1", "", 1, 1.0, 0, 2.5, True, False, None])
METADATA = st.dictionaries(
    FEW_KEYS,
    st.recursive(
        FEW_VALUES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FEW_KEYS, inner, max_size=2),
        max_leaves=5,
    ),
    max_size=3,
)
FEW_FILTERS = filters(
    st.one_of(
        st.lists(FEW_KEYS, min_size=1, max_size=2).map(lambda path: Key(tuple(path))),
        st.sampled_from([Key(("id",), is_own=True), Key(("title",), is_own=True)]),
    ),
    FEW_VALUES,
)


def lies_at(value: Any, path: tuple[str, ...]) -> list[Any]:
    if not path:
        return [value]
    if isinstance(value, list):
        return [found for element in value for found in lies_at(element, path)]
    if isinstance(value, dict) and path[0] in value:
        return lies_at(value[path[0]], path[1:])
    return []


def flat(value: Any) -> list[Any]:
    return [v for e in value for v in flat(e)] if isinstance(value, list) else [value]


def json_type(value: Any) -> str:
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", dict: "object"}
    return kinds.get(type(value), "null")


def reference(where: Filter, document: Document) -> bool:
    if isinstance(where, Not):
        return not reference(where.filter, document)
    if isinstance(where, And | Or):
        parts = [reference(part, document) for part in where.filters]
        return min(parts) if isinstance(where, And) else max(parts)
    own = {"id": document.doc_id, "title": document.title}
    key = where.key
    found = [own[key.path[0]]] if key.is_own else lies_at(dict(document.metadata), key.path)
    if isinstance(where, Exists):
        return found != []
    sign, wanted = ("=", where.values) if isinstance(where, In) else (where.operator, [where.value])
    pairs = [(value, other) for entry in found for value in flat(entry) for other in wanted]
    return any(json_type(v) == json_type(o) and holds(sign, v, o) for v, o in pairs)


def holds(sign: str, value: Any, other: Any) -> bool:
    if sign in ("=", "!="):
        return (value == other) == (sign == "=")
    return {"<": value < other, "<=": value <= other, ">": value > other, ">=": value >= other}[
        sign
    ]


@settings(max_examples=examples(150), deadline=None)
@given(FEW_FILTERS, METADATA, st.sampled_from(["x", "1"]), st.sampled_from(["", "x"]))
def test_matching_equals_the_slow_reference(
    where: Filter, metadata: dict[str, Any], doc_id: str, title: str
) -> None:
    document = Document(doc_id, "", title, metadata)
    assert where.matches(document) is reference(where, document)
