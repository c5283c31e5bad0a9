"""Expressions that say which documents count, read to the filters of `filters.py`.

No part of an expression is run as code or handed to a database; docs/filters.md has the grammar in
words.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache
from typing import Any, NoReturn

from lark import Lark, Token, Transformer, UnexpectedInput, UnexpectedToken, v_args

from dupmae.engine.filters import NAME, OWN_KEYS, And, Compare, Exists, Filter, In, Key, Not, Or
from dupmae.errors import UsageError

_GRAMMAR = rf"""
    ?filter: either
    ?either: both (_OR both)*
    ?both: negation (_AND negation)*
    ?negation: _NOT negation -> opposite
        | "(" either ")"
        | comparison
    ?comparison: key EQUAL value -> compare
        | key UNEQUAL distinct -> compare
        | key ORDER ordered -> compare
        | key _IN "(" value ("," value)* ")" -> member
        | key _EXISTS -> exists

    keys: key ("," key)*
    key: _step ("." _step)*
    _step: NAME | STRING

    ?value: distinct | NULL -> constant
    ?distinct: ordered | TRUE -> constant | FALSE -> constant
    ?ordered: STRING -> string | NUMBER -> number

    _OR: /or(?![\w-])/i
    _AND: /and(?![\w-])/i
    _NOT.1: /not(?![\w-])/i
    _IN: /in(?![\w-])/i
    _EXISTS: /exists(?![\w-])/i
    TRUE: /true(?![\w-])/i
    FALSE: /false(?![\w-])/i
    NULL: /null(?![\w-])/i
    EQUAL: "="
    UNEQUAL: "!="
    ORDER: /[<>]=?/
    NAME: /{NAME}/
    STRING: /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/s
    NUMBER: /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.])/
    %ignore /\s+/
"""

_EXPECTED = {
    "NAME": "a key",
    "STRING": "a string in quotes",
    "NUMBER": "a number",
    "TRUE": "true",
    "FALSE": "false",
    "NULL": "null",
    "EQUAL": "=",
    "UNEQUAL": "!=",
    "ORDER": "< <= > >=",
    "_IN": "in",
    "_EXISTS": "exists",
    "_NOT": "not",
    "_AND": "and",
    "_OR": "or",
    "COMMA": ",",
    "LPAR": "(",
    "RPAR": ")",
    "$END": "the end",
}
"""What errors call the terminals, in the order in which they name them."""

MOST_NESTED = 100
"""How deep `not` and parentheses may be nested: no thought is, and matching recurses."""

_AROUND = 40
"""Characters of an expression that an error shows on either side of the wrong one."""


def parse_filter(text: str) -> Filter:
    """Read a filter expression such as `year >= 2019 and journal = "Nature"`.

    Raises:
        UsageError: if it is none; says at which character, and what was expected.
    """
    found: Filter = _parse(text, "filter")
    if _nesting(found) > MOST_NESTED:
        raise UsageError(f"the filter is nested more than {MOST_NESTED} deep; write it flatter")
    return found


def parse_keys(text: str) -> list[Key]:
    """Read keys with commas between them.

    Raises:
        UsageError: as `parse_filter`.
    """
    found: list[Key] = _parse(text, "keys")
    return found


def to_filter(where: Filter | str) -> Filter:
    """Return a filter as it is, or the one that an expression means."""
    return parse_filter(where) if isinstance(where, str) else where


@v_args(inline=True)
class _Builder(Transformer[Token, Filter]):
    """Makes records of what the grammar's rules found."""

    def either(self, *filters: Filter) -> Or:
        return Or(filters)

    def both(self, *filters: Filter) -> And:
        return And(filters)

    def opposite(self, found: Filter) -> Not:
        return Not(found)

    def compare(self, key: Key, operator: Token, value: str | float | bool | None) -> Compare:
        return Compare(key, str(operator), value)

    def member(self, key: Key, *values: str | float | bool | None) -> In:
        return In(key, values)

    def exists(self, key: Key) -> Exists:
        return Exists(key)

    def keys(self, *keys: Key) -> list[Key]:
        return list(keys)

    def key(self, *steps: Token) -> Key:
        is_own = len(steps) == 1 and steps[0].type == "NAME" and steps[0] in OWN_KEYS
        return Key(tuple(str(s) if s.type == "NAME" else _unquoted(s) for s in steps), is_own)

    def string(self, token: Token) -> str:
        return _unquoted(token)

    def number(self, token: Token) -> int | float:
        try:
            number: int | float = json.loads(token)
        except ValueError:  # Python reads no more than some thousand digits
            number = math.inf
        if number in (math.inf, -math.inf):
            raise _BadTokenError(token, "a number of ordinary size")
        return number

    def constant(self, token: Token) -> bool | None:
        return {"true": True, "false": False, "null": None}[token.lower()]


class _BadTokenError(Exception):
    """A token looks right but stands for no value."""

    def __init__(self, token: Token, expected: str) -> None:
        super().__init__(expected)
        self.position = token.start_pos or 0


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", start=["filter", "keys"], transformer=_Builder())


def _parse(text: str, start: str) -> Any:
    try:
        return _parser().parse(text, start=start)
    except _BadTokenError as error:
        _refuse(text, start, error.position, str(error))
    except UnexpectedInput as error:
        accepted = error.interactive_parser.accepts()
        if "NAME" in accepted:
            accepted.discard("STRING")  # a key in quotes, which "a key" covers
        expected = [words for terminal, words in _EXPECTED.items() if terminal in accepted]
        is_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
        position = len(text) if is_end else (error.pos_in_stream or 0)
        _refuse(text, start, position, _listed(expected))


def _refuse(text: str, start: str, position: int, expected: str) -> NoReturn:
    wrong = re.match(r"[\w-]+|.", text[position:], flags=re.DOTALL)
    found = repr(wrong[0][:_AROUND]) if wrong else "the end"
    first, end = max(0, position - _AROUND), position + _AROUND
    shown = "…" * (first > 0) + text[first:end] + "…" * (end < len(text))
    raise UsageError(
        f"{start} {shown!r} goes wrong at character {position + 1}: expected {expected}, "
        f"found {found}"
    )


def _listed(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _unquoted(token: Token) -> str:
    """Return what a string in double or single quotes says, with JSON's escapes."""
    body = token[1:-1]
    if token[0] == "'":
        body = re.sub(r"\\.|\"", _in_double_quotes, body, flags=re.DOTALL)
    try:
        text: str = json.loads(f'"{body}"', strict=False)
    except ValueError:
        raise _BadTokenError(
            token, "a string with no \\ but JSON's escapes (\\\\ \\\" \\n …)"
        ) from None
    return text


def _in_double_quotes(match: re.Match[str]) -> str:
    return {"\\'": "'", '"': '\\"'}.get(match[0], match[0])


def _nesting(found: Filter) -> int:
    """Return how deep a filter is, without recursion."""
    deepest, waiting = 0, [(found, 1)]
    while waiting:
        part, depth = waiting.pop()
        deepest = max(deepest, depth)
        if isinstance(part, And | Or):
            waiting += [(inner, depth + 1) for inner in part.filters]
        elif isinstance(part, Not):
            waiting.append((part.filter, depth + 1))
    return deepest
