"""Asking systems all queries of a collection, and reporting how they did.

Answers are measured and written block by block, so memory does not grow with the number of
queries, but for each query's values and the few hits that a report shows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from tqdm import tqdm

from dupmae.errors import UsageError
from dupmae.eval.beir import Collection
from dupmae.eval.files import replacing_text
from dupmae.eval.metrics import (
    MEASURES,
    Values,
    aggregate,
    check_measures,
    measure_run,
)
from dupmae.eval.proofs import Parts, Proofs
from dupmae.eval.report import Report
from dupmae.eval.runs import Ranked, Run, run_lines
from dupmae.eval.systems import Answers, System, without_itself

SHALLOW = 10
"""Proofs are reported for answers of this length as well: what an interactive search shows. A
report keeps so many hits of every query."""

RECALL_LEVELS = tuple(f"IPrec@{level / 10:.1f}" for level in range(11))
"""Interpolated precision at recall 0, .1, …, 1: the points of a precision-recall curve."""

_BLOCK = 256  # queries: few enough for their hits to fit in memory at any k, enough for a batch


class _State:
    """One system, and what has been seen of its answers so far."""

    def __init__(self, system: System, measures: Sequence[str], curve: Sequence[str]) -> None:
        self.system = system
        self.values: Values = {name: {} for name in measures}
        self.curve: Values = {name: {} for name in curve}
        self.proofs = Proofs()
        self.shallow = Proofs()
        self.parts = Parts()
        self.top: dict[str, Ranked] = {}
        self.dropped_self_hits = 0
        self.seconds = 0.0

    def answer(self, queries: Mapping[str, str], k: int) -> Run:
        """Return a block's answers; a document with the query's own id never counts as a hit."""
        answers = self._timed(queries, k + 1)  # one may be the query
        self.proofs = self.proofs.joined(answers.results)
        run: dict[str, Ranked] = {}
        for query_id, ranked in answers.run.items():
            others = without_itself(query_id, ranked)
            self.dropped_self_hits += len(ranked) - len(others)
            run[query_id] = others[:k]
            self.top[query_id] = list(others[: min(k, SHALLOW)])
        return run

    def look_shallow(self, queries: Mapping[str, str]) -> None:
        """Ask for a short answer too, as a search does, and note its proofs and parts."""
        results = self._timed(queries, SHALLOW).results
        self.shallow = self.shallow.joined(results)
        self.parts = self.parts.joined(results)

    def measure(self, run: Run, collection: Collection) -> None:
        """Add a block's values."""
        judged = {query_id: collection.qrels[query_id] for query_id in run}
        found = measure_run(run, judged, list({**self.values, **self.curve}))
        for kept in (self.values, self.curve):
            for name, values in kept.items():
                values.update(found[name])

    def _timed(self, queries: Mapping[str, str], k: int) -> Answers:
        started = time.perf_counter()
        answers = self.system.search(queries, k)
        self.seconds += time.perf_counter() - started
        return answers


def evaluate(
    systems: Mapping[str, System],
    collection: Collection,
    *,
    k: int = 1000,
    measures: Sequence[str] = MEASURES,
    run_files: Mapping[str, Path] | None = None,
    precision_recall: bool = False,
) -> Report:
    """Ask each system all queries of a collection and measure the answers.

    Args:
        systems: by name, as from `own_systems(engine)`. Each is asked every block of queries in
            turn, so one may keep the last block's vectors or answers for the next. Proofs are
            reported of the first, if it proves its answers.
        collection: queries and judgements. The systems are taken to hold its corpus.
        k: hits a query that are measured and written, ≥ any measure's cutoff.
        measures: names of ir_measures.
        run_files: system → where to write its TREC run; the file appears when all is done.
        precision_recall: whether the report shall have the points of these curves.

    Raises:
        UsageError: if a measure is unknown or looks deeper than k, or a setting is out of range.
        DataError: if a run file cannot be written.
    """
    names = check_measures(measures, k)
    run_files = {} if run_files is None else run_files
    _check(systems, run_files)
    curve = RECALL_LEVELS if precision_recall else ()
    states = {name: _State(system, names, curve) for name, system in systems.items()}
    first = next(iter(states.values()))
    with ExitStack() as stack:
        files: dict[str, IO[str]] = {
            system: stack.enter_context(replacing_text(path)) for system, path in run_files.items()
        }
        for block in _blocks(collection.queries):
            for system, state in states.items():
                run = state.answer(block, k)
                state.measure(run, collection)
                if system in files:
                    files[system].writelines(run_lines(run, tag=f"dupmae-{system}"))
            if first.proofs.depths:
                first.look_shallow(block)
    return _report(collection, states, k)


def _report(collection: Collection, states: Mapping[str, _State], k: int) -> Report:
    first = next(iter(states.values()))
    return Report(
        collection=collection.name,
        split=collection.split,
        systems={system: aggregate(state.values) for system, state in states.items()},
        k=k,
        proofs={SHALLOW: first.shallow, k: first.proofs} if first.proofs.depths else {},
        parts=first.parts,
        dropped_self_hits={system: state.dropped_self_hits for system, state in states.items()},
        seconds={system: state.seconds for system, state in states.items()},
        per_query={system: state.values for system, state in states.items()},
        top={system: state.top for system, state in states.items()},
        precision={
            system: tuple(aggregate(state.curve).values())
            for system, state in states.items()
            if state.curve
        },
    )


def _check(systems: Mapping[str, System], run_files: Mapping[str, Path]) -> None:
    if not systems:
        raise UsageError("no system was named; expected at least one, such as hybrid")
    unknown = sorted(run_files.keys() - systems.keys())
    if unknown:
        raise UsageError(f"a run was asked of {unknown[0]!r}; systems are {', '.join(systems)}")


def _blocks(queries: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield the queries some at a time, with progress on a terminal."""
    items = list(queries.items())
    with tqdm(total=len(items), desc="queries", unit="query", disable=None) as bar:
        for start in range(0, len(items), _BLOCK):
            block = dict(items[start : start + _BLOCK])
            yield block
            bar.update(len(block))
