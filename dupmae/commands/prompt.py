"""The prompt of `search` on a terminal: queries and a few commands, over one open engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from dupmae.commands.answers import Request, answer_text, find
from dupmae.commands.display import Display
from dupmae.commands.explain import explanation_text, take_apart
from dupmae.commands.history import History
from dupmae.commands.options import read_filter
from dupmae.errors import DupMAEError, UsageError

if TYPE_CHECKING:
    from dupmae.engine import SearchEngine

HELP = """\
Type a query, or
  :more           the next documents of the last answer
  :explain N      take the score of the document at rank N apart
  :where FILTER   only documents whose metadata match; without a filter all again
  :k N            N documents an answer
  :help           this
Ctrl-D leaves. A query that begins with a colon needs a space before it."""


class Session:
    """What a prompt knows: the engine, how it is asked, and what was answered last."""

    def __init__(self, engine: SearchEngine, request: Request, display: Display) -> None:
        self._engine = engine
        self._request = request
        self._display = display
        self._query: str | None = None
        self._found: list[str] = []  # ids, from rank 1 on
        self._commands: dict[str, Callable[[str], str]] = {
            "more": self._more,
            "explain": self._explain,
            "where": self._where,
            "k": self._set_k,
            "help": lambda _: HELP,
        }

    def reply(self, line: str) -> str:
        """Return what is to be shown for a line that was typed.

        Raises:
            DupMAEError: if it cannot be answered; the session goes on as it was.
        """
        if line.startswith(":"):
            name, _, rest = line[1:].strip().partition(" ")
            if name not in self._commands:
                raise UsageError(f"there is no command :{name}; :help lists those that are there")
            return self._commands[name](rest.strip())
        self._engine.reload()  # a prompt may be open for days, and the index be written meanwhile
        return self._answer(line.strip(), self._request)

    def _answer(self, query: str, request: Request) -> str:
        answer = find(self._engine, query, request)
        self._found = [*self._found[: request.offset], *answer.result.hits.doc_ids]
        self._query, self._request = query, replace(request, offset=0)
        return answer_text(answer, self._display)

    def _more(self, rest: str) -> str:
        _refuse(rest, "more")
        return self._answer(self._last(), replace(self._request, offset=len(self._found)))

    def _explain(self, rest: str) -> str:
        query, rank = self._last(), _whole(rest, "explain")
        if not 1 <= rank <= len(self._found):
            raise UsageError(f"expected a rank from 1 to {len(self._found)}, found {rank}")
        k, where = self._request.k, self._request.where
        taken = take_apart(self._engine, query, self._found[rank - 1], k, where)
        return explanation_text(taken, self._display)

    def _where(self, rest: str) -> str:
        return self._changed(replace(self._request, where=read_filter(rest or None)))

    def _set_k(self, rest: str) -> str:
        k = _whole(rest, "k")
        if k < 1:
            raise UsageError(f"k must be at least 1, found {k}")
        return self._changed(replace(self._request, k=k))

    def _changed(self, request: Request) -> str:
        """Ask in another way from now on, and the last query again."""
        if self._query is not None:
            return self._answer(self._query, request)
        self._request = request
        where = "all documents" if request.where is None else f"documents with {request.where}"
        return f"from now on {request.k:,} of {where}"

    def _last(self) -> str:
        if self._query is None:
            raise UsageError("nothing was asked yet; type a query first")
        return self._query


def run_prompt(session: Session, history: History) -> None:
    """Answer lines until the terminal ends; ctrl-C drops a line or stops an answer."""
    while True:
        try:
            line = input("search> ")
            if line.strip():
                history.add(line)
                click.echo(session.reply(line))
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()
        except DupMAEError as error:
            click.echo(f"Error: {error}", err=True)


def _refuse(rest: str, command: str) -> None:
    if rest:
        raise UsageError(f":{command} takes nothing after it, found {rest!r}")


def _whole(rest: str, command: str) -> int:
    if not rest.isdecimal():
        raise UsageError(f":{command} takes a whole number, such as :{command} 3, found {rest!r}")
    return int(rest)
