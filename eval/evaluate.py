"""Asking a searcher all queries of a collection, and reporting how it did.

Any object with `search_batch` can be evaluated. Answers are measured and written block by block,
so memory does not grow with the number of queries.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol

from tqdm import tqdm

from dupmae.errors import UsageError
from dupmae.eval.beir import Collection
from dupmae.eval.files import replacing_text
from dupmae.eval.metrics import (
    MEASURES,
    Values,
    aggregate,
    largest_cutoff,
    measure_run,
    parse_measures,
)
from dupmae.eval.report import Proofs, Report
from dupmae.eval.runs import Run, run_lines
from dupmae.types import SearchResult


@dataclass(frozen=True, slots=True)
class System:
    """What a searcher is asked with: the weights of the two parts, and of feedback."""

    dense_weight: float = 1.0
    sparse_weight: float = 1.0
    feedback: float = 0.0


SYSTEMS: Mapping[str, System] = {
    "hybrid": System(),
    "dense": System(sparse_weight=0.0),
    "sparse": System(dense_weight=0.0),
}
"""By name. The first one's proofs are reported."""

SHALLOW = 10
"""Proofs are reported for answers of this length as well: what an interactive search shows."""

_BLOCK = 256  # queries: few enough for their hits to fit in memory at any k, enough for a batch


class Searcher(Protocol):
    """What an evaluation needs of an engine; `dupmae.engine.SearchEngine` is one."""

    def search_batch(
        self,
        queries: Sequence[str],
        k: int,
        *,
        dense_weight: float,
        sparse_weight: float,
        feedback: float,
    ) -> list[SearchResult]:
        """Answer each query with the k documents that score highest, best first."""
        ...


class _State:
    """One system, and what has been seen of its answers so far."""

    def __init__(self, system: System, measures: Sequence[str]) -> None:
        self.system = system
        self.values: Values = {name: {} for name in measures}
        self.proofs = Proofs()
        self.dropped_self_hits = 0
        self.seconds = 0.0

    def search(self, searcher: Searcher, queries: Sequence[str], k: int) -> list[SearchResult]:
        """Search a block of queries, and note the time and the proofs."""
        started = time.perf_counter()
        results = searcher.search_batch(queries, k, **asdict(self.system))
        self.seconds += time.perf_counter() - started
        self.proofs = self.proofs.joined(results)
        return results

    def answer(self, searcher: Searcher, queries: Mapping[str, str], k: int) -> Run:
        """Return a block's answers; a document with the query's own id never counts as a hit."""
        results = self.search(searcher, list(queries.values()), k + 1)  # one may be the query
        run: Run = {}
        for query_id, result in zip(queries, results, strict=True):
            others = [(hit.doc_id, hit.score) for hit in result.hits if hit.doc_id != query_id]
            self.dropped_self_hits += len(result.hits) - len(others)
            run[query_id] = others[:k]
        return run

    def measure(self, run: Run, collection: Collection) -> None:
        """Add a block's values."""
        judged = {query_id: collection.qrels[query_id] for query_id in run}
        for name, values in measure_run(run, judged, list(self.values)).items():
            self.values[name].update(values)


def evaluate(
    searcher: Searcher,
    collection: Collection,
    *,
    k: int = 1000,
    measures: Sequence[str] = MEASURES,
    systems: Mapping[str, System] = SYSTEMS,
    run_files: Mapping[str, Path] | None = None,
) -> Report:
    """Search all queries of a collection with each system and measure the answers.

    Args:
        searcher: what answers; it is asked each block of queries several times in a row, so it
            may keep the last block's vectors.
        collection: queries and judgements. The searcher is taken to hold its corpus.
        k: hits a query that are measured and written, ≥ any measure's cutoff.
        measures: names of ir_measures.
        systems: by name; proofs are reported of the first.
        run_files: system → where to write its TREC run; the file appears when all is done.

    Raises:
        UsageError: if a measure is unknown or looks deeper than k, or a setting is out of range.
        DataError: if a run file cannot be written.
    """
    names = [str(measure) for measure in parse_measures(measures)]
    run_files = {} if run_files is None else run_files
    _check(k, names, systems, run_files)
    states = {name: _State(system, names) for name, system in systems.items()}
    first = next(iter(states.values()))
    shallow = _State(first.system, ())
    with ExitStack() as stack:
        files: dict[str, IO[str]] = {
            system: stack.enter_context(replacing_text(path)) for system, path in run_files.items()
        }
        for block in _blocks(collection.queries):
            for system, state in states.items():
                run = state.answer(searcher, block, k)
                state.measure(run, collection)
                if system in files:
                    files[system].writelines(run_lines(run, tag=f"dupmae-{system}"))
            shallow.search(searcher, list(block.values()), SHALLOW)
    return Report(
        collection=collection.name,
        split=collection.split,
        systems={system: aggregate(state.values) for system, state in states.items()},
        k=k,
        proofs={SHALLOW: shallow.proofs, k: first.proofs},
        dropped_self_hits={system: state.dropped_self_hits for system, state in states.items()},
        seconds={system: state.seconds for system, state in states.items()},
        per_query={system: state.values for system, state in states.items()},
    )


def _check(
    k: int,
    measures: Sequence[str],
    systems: Mapping[str, System],
    run_files: Mapping[str, Path],
) -> None:
    if k < 1:
        raise UsageError(f"k must be 1 or more, found {k}")
    if largest_cutoff(measures) > k:
        raise UsageError(
            f"{', '.join(measures)} look at {largest_cutoff(measures)} hits a query, "
            f"but only k = {k} are searched; raise k"
        )
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
