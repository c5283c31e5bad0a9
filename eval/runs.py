"""Runs: what a system answered, and the TREC file that other tools read it from.

A line of the file is `query-id Q0 doc-id rank score tag`. trec_eval ignores the rank: it sorts by
score and, at equal scores, by document id from Z to A; and it holds scores in single precision,
so that scores which differ in the ninth digit are equal to it. `falling_scores` therefore moves a
score down, by as few single-precision steps as it takes, where two neighbours would be taken for
equal. All other scores are written as they are, with every digit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from dupmae.errors import DataError
from dupmae.eval.files import replacing_text, text_lines
from dupmae.results import RankedIds
from dupmae.types import Float64, Int64

Ranked = Sequence[tuple[str, float]]
"""(document id, score), best first."""

Run = Mapping[str, Ranked]
"""Query id → its ranked documents."""

_SUBNORMALS = 0x007FFFFF  # float32 bit patterns between 0 and the smallest normal number

_SMALLEST = np.finfo(np.float32).smallest_normal

_LARGEST = float(np.finfo(np.float32).max / 2)  # so that there is room to fall


def falling_scores(scores: Sequence[float]) -> list[float]:
    """Return scores in the same order that fall strictly even in single precision.

    Args:
        scores: finite, at most half of float32's range (so that there is room below), never rising.

    Raises:
        ValueError: if they rise somewhere or are not finite.
    """
    exact: Float64 = np.asarray(scores, dtype=np.float64)
    if not np.all(np.abs(exact) <= _LARGEST):
        raise ValueError("scores must be finite and within half the range of float32")
    if np.any(np.diff(exact) > 0):
        raise ValueError("scores must not rise: a ranking is listed best first")
    single = exact.astype(np.float32)
    if np.all(np.diff(single) < 0) and np.all(np.abs(single) >= _SMALLEST):
        return list(map(float, scores))  # as most rankings are
    steps = _float32_steps(exact)
    # Each score keeps its step or goes one below its predecessor's, whichever is lower:
    # f[i] = min(s[i], f[i-1] - 1), hence f[i] + i is the running minimum of s[i] + i.
    places = np.arange(len(steps))
    falling = np.minimum.accumulate(steps + places) - places
    values: list[float] = np.where(falling == steps, exact, _step_values(falling)).tolist()
    return values


def falling_columns(ranked: Ranked) -> tuple[Sequence[str], list[float]]:
    """Return the ids of an answer, and their `falling_scores`."""
    doc_ids, scores = columns(ranked)
    return doc_ids, falling_scores(scores)


def columns(ranked: Ranked) -> tuple[Sequence[str], Sequence[float]]:
    """Return the ids of an answer, and their scores."""
    if isinstance(ranked, RankedIds):
        return ranked.doc_ids, ranked.scores
    return [doc_id for doc_id, _ in ranked], [score for _, score in ranked]


def _float32_steps(values: Float64) -> Int64:
    """Number the normal float32 numbers around 0 in their order, and return each value's number.

    Subnormal values count as 0, since processors may be set to treat them so.
    """
    bits = np.abs(values).astype(np.float32).view(np.int32).astype(np.int64)
    steps: Int64 = np.sign(values).astype(np.int64) * np.maximum(bits - _SUBNORMALS, 0)
    return steps


def _step_values(steps: Int64) -> Float64:
    """Return the float32 numbers with these numbers; the inverse of `_float32_steps`."""
    bits = np.where(steps == 0, 0, np.abs(steps) + _SUBNORMALS).astype(np.int32)
    values: Float64 = np.sign(steps) * bits.view(np.float32).astype(np.float64)
    return values


def run_lines(run: Run, tag: str = "dupmae") -> Iterator[str]:
    """Yield the lines of a TREC run file, of each query that has answers as one string.

    Raises:
        DataError: if an id or the tag holds white space, which separates fields in that format.
    """
    _check_field("run tag", tag)
    for query_id in run:
        _check_field("query id", query_id)
    for doc_id in set().union(*(columns(ranked)[0] for ranked in run.values())):
        _check_field("document id", doc_id)
    for query_id, ranked in run.items():
        if ranked:
            start, end = f"{query_id} Q0 ", f" {tag}\n"
            hits = enumerate(zip(*falling_columns(ranked), strict=True), start=1)
            yield "".join(
                [f"{start}{doc_id} {rank} {score}{end}" for rank, (doc_id, score) in hits]
            )


def _check_field(what: str, value: str) -> None:
    if value.split() != [value]:
        raise DataError(
            f"{what} {value!r} cannot stand in a TREC run: it is empty or holds white space"
        )


def write_run(run: Run, path: Path, tag: str = "dupmae") -> None:
    """Write a TREC run file."""
    with replacing_text(path) as stream:
        stream.writelines(run_lines(run, tag))


def read_run(path: Path) -> Run:
    """Read a TREC run file in the order that trec_eval gives it; plain or gzip.

    Raises:
        DataError: if a line has not six fields or no finite score, or a document repeats.
    """
    scores: dict[str, dict[str, float]] = {}
    for number, line in text_lines(path):
        where = f"{path}, line {number}"
        query_id, doc_id, score = _run_line(line, where)
        ranking = scores.setdefault(query_id, {})
        if doc_id in ranking:
            raise DataError(f"{where}: document {doc_id!r} repeats for query {query_id!r}")
        ranking[doc_id] = score
    return {
        query_id: sorted(
            ranking.items(), key=lambda hit: (np.float32(hit[1]), hit[0]), reverse=True
        )
        for query_id, ranking in scores.items()
    }


def _run_line(line: str, where: str) -> tuple[str, str, float]:
    fields = line.split()
    if len(fields) != 6:
        raise DataError(
            f"{where}: expected the six fields 'query-id Q0 doc-id rank score tag', "
            f"found {len(fields)}: {line[:80]}"
        )
    try:
        score = float(fields[4])
    except ValueError:
        score = math.nan
    if not abs(score) <= _LARGEST:
        raise DataError(
            f"{where}: the score must be a finite number below 1.7e38, found {fields[4]!r}"
        )
    return fields[0], fields[2], score
