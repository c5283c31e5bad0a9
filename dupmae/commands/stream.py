"""`search -`: queries from a stream, answers as JSON lines or as a TREC run.

Memory is that of one block of queries and its answers; for a run, also that of the ids so far.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

import click

from dupmae.commands.answers import Request, answer_fields, find_batch
from dupmae.errors import DataError, UsageError

if TYPE_CHECKING:
    from dupmae.engine import SearchEngine

BLOCK = 64
"""Queries that are answered at once, unless another number is given."""

LONGEST_LINE = 1 << 20
"""Bytes of a line of queries; what is longer is no query, and is not read into memory."""

STDIN = "standard input"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How queries come and answers go; a field is None, or not true, where its option is not given.

    `form` as in `read_queries`; `is_run`: a TREC run with `tag` instead of JSON lines; `block`
    queries at once.
    """

    form: str | None = None
    is_run: bool = False
    tag: str | None = None
    block: int | None = None

    def check(self, request: Request, as_json: bool) -> None:
        """Raise UsageError unless these and the other options fit together."""
        if request.keys:
            raise UsageError(
                "--facets counts the same for every query; ask for them with one query"
            )
        if self.is_run and (as_json or request.offset):
            raise UsageError("a TREC run begins at rank 1: --trec goes without --json and --offset")
        if self.tag is not None and (not self.is_run or self.tag.split() != [self.tag]):
            raise UsageError("--tag names a TREC run, in one word; it goes with --trec")

    def is_any_given(self) -> bool:
        """Say whether any of the options was given."""
        return self != StreamOptions()


@dataclass(frozen=True, slots=True)
class Query:
    """A text to search for, with the id that its answer carries."""

    query_id: str
    text: str


def read_queries(stream: BinaryIO, form: str | None = None) -> Iterator[Query]:
    """Yield the queries of a stream, one a line; blank lines are passed over.

    Args:
        stream: UTF-8, with or without a byte order mark; any line may end with CRLF.
        form: `text`, a query a line, whose id is the number of its line; or `jsonl`, an object
            with `_id` and `text` a line. If None it is `jsonl` where the first line that is not
            blank begins with `{`, and else `text`.

    Raises:
        DataError: if a line cannot be read; it names the line. Those before it were yielded.
    """
    lines = _lines(stream)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{STDIN} holds no queries; expected one a line")
    is_json = first[1].lstrip().startswith("{") if form is None else form == "jsonl"
    for number, line in chain([first], lines):
        yield _query(line, f"{STDIN}, line {number}") if is_json else Query(str(number), line)


def answer_stream(
    engine: SearchEngine, stream: BinaryIO, request: Request, options: StreamOptions
) -> None:
    """Answer the queries of a stream on stdout, block by block.

    Raises:
        DataError: if a line cannot be read. The queries before it are answered by then.
    """
    from tqdm import tqdm

    hides_bar = sys.stdout.isatty() or not sys.stderr.isatty()  # a bar would cut through answers
    with tqdm(read_queries(stream, options.form), unit=" queries", disable=hides_bar) as queries:
        asked = _blocks(
            _fit_for_run(queries) if options.is_run else queries, options.block or BLOCK
        )
        for block in asked:
            if options.is_run:
                lines = _run_lines(engine, block, request, options.tag or "dupmae")
            else:
                lines = _json_lines(engine, block, request)
            click.echo("".join(lines), nl=False)


def _json_lines(engine: SearchEngine, queries: Sequence[Query], request: Request) -> list[str]:
    answers = find_batch(engine, [query.text for query in queries], request)
    return [
        f"{json.dumps({'_id': query.query_id} | answer_fields(answer), ensure_ascii=False)}\n"
        for query, answer in zip(queries, answers, strict=True)
    ]


def _run_lines(
    engine: SearchEngine, queries: Sequence[Query], request: Request, tag: str
) -> list[str]:
    """Return the lines of a TREC run; no text of a document is read for them."""
    from dupmae.eval.runs import run_lines

    texts = [query.text for query in queries]
    results = engine.search_batch(texts, request.k, where=request.where, mode=request.mode)
    run = {
        query.query_id: result.hits.ranked() for query, result in zip(queries, results, strict=True)
    }
    return list(run_lines(run, tag))


def _blocks(queries: Iterable[Query], size: int) -> Iterator[Sequence[Query]]:
    """Yield queries in blocks; a line that cannot be read ends a block, which is still yielded."""
    block: list[Query] = []
    try:
        for query in queries:
            block.append(query)
            if len(block) == size:
                yield block
                block = []
    except DataError:
        if block:
            yield block
        raise
    if block:
        yield block


def _fit_for_run(queries: Iterable[Query]) -> Iterator[Query]:
    """Yield queries whose ids a run can hold, each once."""
    seen = set()
    for query in queries:
        query_id = query.query_id
        if query_id.split() != [query_id]:
            raise DataError(
                f"{STDIN}: the query id {query_id!r} holds white space; no run can hold it"
            )
        if query_id in seen:
            raise DataError(
                f"{STDIN}: the query id {query_id!r} repeats; in a run each is one query"
            )
        seen.add(query_id)
        yield query


def _lines(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield number (from 1) and text of each line that is not blank."""
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise DataError(f"{STDIN}, line {number}: longer than {LONGEST_LINE:,} bytes")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{STDIN}, line {number}: not UTF-8 (byte {error.start + 1} of the line)"
            ) from None
        if text:
            yield number, text


def _query(line: str, where: str) -> Query:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}") from None
    if not isinstance(record, dict):
        record = {}
    query_id, text = record.get("_id"), record.get("text")
    if not (isinstance(query_id, str) and isinstance(text, str) and query_id and text.strip()):
        raise DataError(
            f'{where}: expected {{"_id": "…", "text": "…"}} with strings that are not blank, '
            f"found {line[:80]}"
        )
    try:
        (query_id + text).encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: holds half of a surrogate pair, which no text may") from None
    return Query(query_id, text)
