"""Eight readers and one writer at work on one index, each answer checked against brute force.

Run as a program; the processes are forks of it, which has imported all and used nothing of it.

    python tests/load.py FOLDER SECONDS KILLS SEED

What the writer does is a function of the seed. So a reader knows which documents there are after
each operation, and which operations may be done when it looks. With KILLS above 0 the writer is
killed so often at random moments, and another goes on; SECONDS is then ignored.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fakes import FakeEncoder
from faults import forked

from dupmae.engine import (
    SearchEngine,
    build_index,
    compact,
    delete_documents,
    delete_matching,
    verify_index,
)
from dupmae.results import SearchResult
from dupmae.types import Document, Float64

WORDS = ("whale", "ship", "sea", "captain", "harpoon", "storm", "sail", "mast", "calm", "wind")
CONTEXT = multiprocessing.get_context("fork")
PROCESSES, THREADS = 4, 2
ROUNDING = 1e-9
"""How far sums in another order may be off; scores are about 1."""
LONGEST_LIFE = 1.5
"""Seconds until a writer is killed, at most: a few operations."""


class History:
    """The documents after each operation, in order, all made from a seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._states: list[tuple[Document, ...]] = [tuple(self._new(random.Random(seed), 80))]

    def state(self, number: int) -> tuple[Document, ...]:
        """Return the documents after operation `number`; 0 is the index as first built."""
        while len(self._states) <= number:
            self._states.append(self._after(len(self._states)))
        return self._states[number]

    def operate(self, number: int, folder: Path) -> None:
        """Do operation `number` on the index."""
        kind, chosen = self._operation(number)
        if kind == "add":
            build_index(chosen, FakeEncoder(), folder, block_size=16)
        elif kind == "delete":
            delete_documents(folder, chosen)
        elif kind == "where":
            delete_matching(folder, f"n < {chosen}")
        else:
            compact(folder)

    def _after(self, number: int) -> tuple[Document, ...]:
        kind, chosen = self._operation(number)
        before = self.state(number - 1)
        if kind == "add":
            replaced = {document.doc_id for document in chosen}
            return (*(d for d in before if d.doc_id not in replaced), *chosen)
        if kind == "delete":
            return tuple(d for d in before if d.doc_id not in chosen)
        if kind == "where":
            return tuple(d for d in before if d.metadata["n"] >= chosen)
        return before

    def _operation(self, number: int) -> tuple[str, Any]:
        chance = random.Random(f"{self._seed} {number}")
        before = self.state(number - 1)
        kind = chance.choice(["add", "add", "delete", "where", "compact"])
        if kind == "delete" and len(before) > 60:
            return kind, [document.doc_id for document in chance.sample(before, 9)]
        if kind == "where" and len(before) > 60:
            return kind, chance.randrange(20)
        if kind == "compact":
            return kind, None
        return "add", self._new(chance, chance.randrange(1, 30))

    def _new(self, chance: random.Random, count: int) -> list[Document]:
        return [
            Document(f"d{n}", " ".join(chance.choices(WORDS, k=5)), metadata={"n": n})
            for n in chance.sample(range(150), count)
        ]


@dataclass
class Truth:
    """Brute force over one state, from its texts alone."""

    documents: Sequence[Document]
    encoder: FakeEncoder = field(default_factory=FakeEncoder)

    def __post_init__(self) -> None:
        encoded = self.encoder.encode_documents([d.content for d in self.documents])
        self._dense = encoded.dense.astype(np.float64)
        self._sparse = np.zeros((len(self.documents), self.encoder.vocabulary_size))
        for row, (terms, weights) in zip(self._sparse, encoded.sparse, strict=True):
            row[terms] = weights

    def problem(self, result: SearchResult, k: int, offset: int, below: int) -> str:
        """Say what is wrong with the answer from documents with n < `below`; "" if nothing is."""
        scores = self._scores(result.query)
        matching = [p for p, d in enumerate(self.documents) if d.metadata["n"] < below]
        best = sorted(matching, key=lambda place: (-scores[place], place))[offset : offset + k]
        places = {document.doc_id: place for place, document in enumerate(self.documents)}
        if not result.proven or len(result.hits) != len(best):
            return f"{len(result.hits)} hits, proven: {result.proven}; expected {len(best)}"
        for hit, place in zip(result.hits, best, strict=True):
            found = places.get(hit.doc_id)
            if found is None or abs(scores[found] - hit.score) > ROUNDING:
                return f"{hit} is no document of this state, or scores otherwise"
            same_text = self.documents[found].text == self.documents[place].text
            if found != place and (same_text or abs(scores[found] - scores[place]) > ROUNDING):
                return f"{hit.doc_id} in the place of {self.documents[place].doc_id}"
        return ""

    def _scores(self, query: str) -> Float64:
        asked = self.encoder.encode_queries([query])
        terms, weights = asked.sparse.row(0)
        return self._dense @ asked.dense[0] + self._sparse[:, terms] @ weights.astype(np.float64)


class Shared:
    """Numbers that all processes see: operations begun and done, and whether to stop.

    They have no lock, which a killed writer might hold for ever.
    """

    def __init__(self) -> None:
        self.begun, self.done, self.stop = (CONTEXT.RawValue("l", 0) for _ in range(3))


class Reader:
    """An engine that several threads of one process share, and what they have seen."""

    def __init__(self, folder: Path, seed: int, shared: Shared) -> None:
        self._folder, self._history, self._shared = folder, History(seed), shared
        self._lock = threading.Lock()
        self.counts = {"answers": 0, "reloads": 0, "opened": 0, "states": 0}
        self.problems: list[str] = []
        done = shared.done.value
        self._engine = SearchEngine.open(folder, FakeEncoder())
        self._seen = [self._identify(self._engine, done)]

    def work(self, seed: int) -> None:
        """Ask until the end, now and then of a newer state."""
        chance = random.Random(seed)
        try:
            while not self._shared.stop.value and not self.problems:
                self._ask_shared(chance)
                if chance.random() < 0.2:
                    self._reload()
                if chance.random() < 0.05:
                    self._ask_anew(chance)
        except Exception:
            self.problems.append(traceback.format_exc())

    def _ask_shared(self, chance: random.Random) -> None:
        with self._lock:
            first = len(self._seen) - 1

        def candidates() -> list[tuple[int, Truth]]:
            with self._lock:  # others may have reloaded, before the search began or after
                return self._seen[first:]

        self._ask(self._engine, chance, candidates)

    def _ask_anew(self, chance: random.Random) -> None:
        done = self._shared.done.value
        with SearchEngine.open(self._folder, FakeEncoder()) as engine:
            with self._lock:
                state = self._identify(engine, done)
                self.counts["opened"] += 1
            self._ask(engine, chance, lambda: [state])

    def _ask(
        self,
        engine: SearchEngine,
        chance: random.Random,
        candidates: Callable[[], list[tuple[int, Truth]]],
    ) -> None:
        query = " ".join(chance.choices([*WORDS, "unheard"], k=chance.randrange(1, 4)))
        k, offset = chance.choice([1, 5, 20, 300]), chance.choice([0, 0, 7])
        below = chance.choice([1000, 1000, chance.randrange(150)])
        where = None if below == 1000 else f"n < {below}"
        result = engine.search(query, k, offset=offset, where=where)
        states = candidates()
        found = [truth.problem(result, k, offset, below) for _, truth in states]
        with self._lock:
            self.counts["answers"] += 1
            if "" not in found:
                numbers = [number for number, _ in states]
                self.problems.append(f"after {numbers}: {query!r}, k {k}, where {where}: {found}")

    def _reload(self) -> None:
        with self._lock:
            done = self._shared.done.value
            if self._engine.reload():
                self.counts["reloads"] += 1
                self._seen.append(self._identify(self._engine, max(done, self._seen[-1][0])))

    def _identify(self, engine: SearchEngine, least: int) -> tuple[int, Truth]:
        """Return the state that was opened: none before `least`, none that was not begun."""
        documents = tuple(engine.documents.get(range(len(engine))))
        begun = self._shared.begun.value
        for number in range(least, begun + 1):
            if self._history.state(number) == documents:
                self.counts["states"] += 1
                return number, Truth(documents)
        generation = engine.manifest.generation
        raise AssertionError(f"generation {generation} is not of operations {least} to {begun}")


def read(folder: Path, seed: int, number: int, shared: Shared) -> None:
    """Be one process of readers, and leave a file of what came of it."""
    reader = Reader(folder, seed, shared)
    threads = [
        threading.Thread(target=reader.work, args=(1000 * number + each,))
        for each in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcome = {**reader.counts, "problems": reader.problems}
    folder.with_name(f"reader-{number}.json").write_text(json.dumps(outcome))


def write(folder: Path, seed: int, shared: Shared) -> None:
    """Do one operation after the other."""
    history, number = History(seed), shared.done.value
    while not shared.stop.value:
        number += 1
        shared.begun.value = number
        history.operate(number, folder)
        shared.done.value = number


def left_by_a_kill(folder: Path, seed: int, done: int, begun: int) -> tuple[int, list[str]]:
    """Return after which operation the index is, and what is wrong with it."""
    problems = verify_index(folder, deep=True)
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        documents = tuple(engine.documents.get(range(len(engine))))
    history = History(seed)
    for number in {done, begun}:
        if history.state(number) == documents:
            return number, problems
    return done, [*problems, f"the state is neither that after operation {done} nor {begun}"]


def kill_writers(folder: Path, seed: int, shared: Shared, kills: int) -> tuple[int, list[str]]:
    """Kill writers at random moments; return how many were at work, and what went wrong."""
    chance, interrupted, problems = random.Random(seed), 0, []
    for _ in range(kills):
        writer = CONTEXT.Process(target=write, args=(folder, seed, shared))
        writer.start()
        time.sleep(chance.uniform(0.05, LONGEST_LIFE))
        writer.kill()
        writer.join()
        if writer.exitcode != -signal.SIGKILL:
            problems.append(f"a writer ended with {writer.exitcode}")
        done, begun = shared.done.value, shared.begun.value
        interrupted += begun > done
        look = partial(left_by_a_kill, folder, seed, done, begun)
        shared.done.value, found = forked(look)
        problems += found
    return interrupted, problems


def run(folder: Path, seconds: float, kills: int, seed: int) -> dict[str, Any]:
    """Let all of them work, and return what came of it."""
    shared, started = Shared(), time.monotonic()
    first = History(seed).state(0)
    forked(lambda: build_index(first, FakeEncoder(), folder, block_size=16))
    readers = [
        CONTEXT.Process(target=read, args=(folder, seed, number, shared))
        for number in range(PROCESSES)
    ]
    for reader in readers:
        reader.start()
    interrupted, problems = 0, []
    if kills:
        interrupted, problems = kill_writers(folder, seed, shared, kills)
    else:
        writer = CONTEXT.Process(target=write, args=(folder, seed, shared))
        writer.start()
        writer.join(seconds)
        shared.stop.value = 1
        writer.join()
        if writer.exitcode:
            problems.append(f"the writer ended with {writer.exitcode}")
    shared.stop.value = 1
    for reader in readers:
        reader.join()
    outcomes = [json.loads(path.read_text()) for path in folder.parent.glob("reader-*.json")]
    if len(outcomes) < PROCESSES:
        problems.append(f"{PROCESSES - len(outcomes)} processes of readers ended early")
    problems += [problem for outcome in outcomes for problem in outcome["problems"]]
    problems += forked(lambda: verify_index(folder, deep=True))
    return {
        "seconds": round(time.monotonic() - started, 1),
        "operations": shared.done.value,
        "kills": kills,
        "interrupted": interrupted,
        **{
            name: sum(outcome[name] for outcome in outcomes)
            for name in ("answers", "reloads", "opened", "states")
        },
        "problems": problems,
    }


if __name__ == "__main__":
    place, seconds, kills, seed = sys.argv[1:]
    outcome = run(Path(place) / "my.index", float(seconds), int(kills), int(seed))
    sys.stdout.write(f"{json.dumps(outcome)}\n")
