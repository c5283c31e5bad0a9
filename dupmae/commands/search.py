"""`search`: one query, a prompt for many, or a stream of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dupmae.commands.answers import Request, answer_fields, answer_text, check_query, find
from dupmae.commands.display import Display
from dupmae.commands.history import History, history_path
from dupmae.commands.options import (
    index_option,
    json_option,
    model_option,
    open_index,
    read_filter,
    threads_option,
    weight_options,
    where_option,
)
from dupmae.commands.prompt import Session, run_prompt
from dupmae.commands.stream import BLOCK, StreamOptions, answer_stream
from dupmae.errors import UsageError

if TYPE_CHECKING:
    from dupmae.engine import SearchEngine


def stream_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that are about queries from stdin: the fields of `StreamOptions`."""
    for option in (
        click.option(
            "--batch",
            "block",
            type=click.IntRange(1, 4096),
            help="With -: how many queries are answered at once; 1 answers each as it comes.  "
            f"[default: {BLOCK}]",
        ),
        click.option("--tag", help="With --trec: the run's name.  [default: dupmae]"),
        click.option("--trec", "is_run", is_flag=True, help="With -: answer as a TREC run."),
        click.option(
            "--input",
            "form",
            type=click.Choice(["text", "jsonl"]),
            help='With -: a query a line, or objects with "_id" and "text".  '
            "[default: jsonl if the first line begins with {, else text]",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("query", required=False)
@click.option("-k", default=10, show_default=True, help="How many documents to return.")
@click.option("--offset", default=0, help="How many of the best to leave out, for the next page.")
@where_option
@click.option("--facets", metavar="KEYS", help="Count the values at these keys: 'journal,year'.")
@click.option(
    "--mode",
    type=click.Choice(["exact", "fast"]),
    default="exact",
    show_default=True,
    help="fast: of an index made with --hnsw, without proof; scores are exact, but a hit may be "
    "missing.",
)
@index_option
@model_option
@weight_options
@threads_option
@json_option
@stream_options
@click.option(
    "--no-history",
    is_flag=True,
    envvar="DUPMAE_NO_HISTORY",
    help="At the prompt: neither read nor keep a history.  [also: DUPMAE_NO_HISTORY=1]",
)
def search(
    query: str | None,
    k: int,
    offset: int,
    where: str | None,
    facets: str | None,
    mode: str,
    as_json: bool,
    no_history: bool,
    **others: Any,
) -> None:
    """Find the k documents that score highest for QUERY, exactly and proven.

    With - as QUERY, queries are read from standard input, one a line, and answered in JSON lines.
    Without QUERY a prompt opens on a terminal.
    """
    from dupmae.engine import parse_keys

    stream = StreamOptions(
        **{field.name: others.pop(field.name) for field in fields(StreamOptions)}
    )
    keys = [] if facets is None else parse_keys(facets)
    request = Request(k, offset, read_filter(where), keys, mode)
    open_it: Callable[[], SearchEngine] = partial(open_index, **others)
    if query == "-":
        stream.check(request, as_json)
        with open_it() as engine:
            answer_stream(engine, sys.stdin.buffer, request, stream)
    elif stream.is_any_given():
        raise UsageError("--input, --trec, --tag and --batch are for queries from stdin: search -")
    elif query is None:
        _check_prompt(request, as_json)
        _prompt(open_it, request, None if no_history else history_path())
    else:
        check_query(query)
        with open_it() as engine:
            answer = find(engine, query, request)
        if as_json:
            click.echo(json.dumps(answer_fields(answer), ensure_ascii=False))
        else:
            click.echo(answer_text(answer, Display.of_stdout()))


def _check_prompt(request: Request, as_json: bool) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "no query; give one, or - to read queries from standard input, one a line "
            "(on a terminal a prompt would open)"
        )
    if as_json or request.offset or request.keys:
        raise UsageError("--json, --offset and --facets need a query; the prompt goes without them")


def _prompt(open_it: Callable[[], SearchEngine], request: Request, history: Path | None) -> None:
    earlier = History(history)
    with open_it() as engine:
        click.echo(f"{len(engine):,} documents; :help says what can be typed, ctrl-D leaves")
        run_prompt(Session(engine, request, Display.of_stdout()), earlier)
