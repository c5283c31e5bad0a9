"""Makes the n-th change of an index folder go wrong, for chosen n, and says what is left each time.

Run as a program with `faults.c` preloaded: it then counts and breaks the calls of whatever library
writes. Each attempt is a fork of this process, which has imported all and used nothing of it.

    LD_PRELOAD=faults.so python tests/faults.py FOLDER SCENARIO KIND=POSITIONS...

POSITIONS is a number of calls, spread over all, or `all`. The first line of output is what a power
cut could take of a state that was made without a fault.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fakes import WordReader

from dupmae.engine import (
    Borrow,
    Chunk,
    SearchEngine,
    build_index,
    compact,
    delete_documents,
    delete_matching,
    read_manifest,
    restore_index,
    snapshot_index,
    verify_index,
)
from dupmae.engine.fast import has_graph
from dupmae.errors import DupMAEError, IndexMissingError
from dupmae.types import Document

KINDS = {"count": 1, "kill": 2, "full": 3, "fail": 4}
"""Of faults: none; death; a disk that is full from then on; one call that fails."""


def document(number: int, version: int = 0) -> Document:
    return Document(
        f"d{number}", f"whale {'ship ' * (number % 4)} v{version}", metadata={"n": number}
    )


OLD = [document(number) for number in range(12)]
NEW = [document(number, 1) for number in range(9, 16)]
PASSAGES = Chunk(tokens=2, overlap=1)


def reader() -> WordReader:
    """Return an encoder that reads four words: one document in four is truncated, if not split."""
    return WordReader(6)


def build(folder: Path) -> None:
    build_index(OLD, reader(), folder, block_size=5)


def update(folder: Path) -> None:
    build_index(NEW, reader(), folder, block_size=5)


def replace(folder: Path) -> None:
    build_index(NEW, reader(), folder, block_size=5, replace=True)


def split(folder: Path) -> None:
    """Put an index of passages, with a graph, in the place of one of whole documents without."""
    build_index(OLD, reader(), folder, block_size=5, replace=True, chunk=PASSAGES, hnsw=True)


def borrow(folder: Path) -> None:
    """Put an index whose documents borrow terms in the place of one of others that do not."""
    build_index(NEW, reader(), folder, block_size=5, replace=True, borrow=Borrow(3, 4))


def tantivy(folder: Path) -> None:
    """Put an index with Tantivy's files, of other documents, in the place of one without."""
    build_index(NEW, reader(), folder, block_size=5, replace=True, sparse="tantivy")


def delete(folder: Path) -> None:
    delete_documents(folder, ["d2", "d10", "d15"], missing_ok=True)


def where(folder: Path) -> None:
    delete_matching(folder, "n < 3 or n >= 14")


def restore(folder: Path) -> None:
    """Restore a snapshot, if that was not done before."""
    if not (folder / "MANIFEST.json").exists():
        restore_index(folder.with_name("snapshot.tar"), folder)


def nothing(folder: Path) -> None:
    pass


def snapshot(folder: Path) -> None:
    other = folder.with_name("other")
    updated(other)
    snapshot_index(other, folder.with_name("snapshot.tar"))


def updated(folder: Path) -> None:
    build(folder)
    build_index(NEW[-2:], reader(), folder)
    delete_documents(folder, ["d0"])


SCENARIOS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "build": (nothing, build),
    "update": (build, update),
    "replace": (build, replace),
    "delete": (updated, delete),
    "where": (updated, where),
    "compact": (updated, compact),
    "restore": (snapshot, restore),
    "split": (build, split),
    "split-update": (split, update),
    "tantivy": (build, tantivy),
    "borrow": (build, borrow),
}
"""What is done without a fault, and then with one."""


@dataclass
class Outcome:
    """What an attempt came to: how it ended, what state is left, and what is wrong with that."""

    kind: str
    at: int
    died: bool
    error: str
    state: str
    problems: list[str]
    again: str
    leftovers: list[str]


def state(folder: Path) -> tuple[str, list[str]]:
    """Return what an index answers and holds, as text, and what `verify` finds."""
    try:
        with SearchEngine.open(folder, reader()) as engine:
            manifest = engine.manifest
            hits = engine.search("whale ship v1", 100).hits
            documents = engine.documents.get(range(len(engine)))
            counts = (manifest.truncated, manifest.passages)
            graphs = set(map(has_graph, manifest.segments))
    except IndexMissingError as error:
        if "no index at" not in str(error):
            raise
        return "no index", []
    return repr((hits, documents, counts, graphs)), verify_index(folder, deep=True)


def leftovers(folder: Path) -> list[str]:
    """Return the files that a finished folder should not hold."""
    named = {file.path for file in read_manifest(folder).files} | {"MANIFEST.json", "WRITER.lock"}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return sorted(found - named)


class Attempts:
    """Attempts at one scenario, in folders below `place`."""

    def __init__(self, place: Path, scenario: str) -> None:
        self._before, self._folder = place / "before", place / "my.index"
        self._trace = place / "trace"
        prepare, self._operate = SCENARIOS[scenario]
        forked(lambda: prepare(self._before))
        self.old, _ = forked(lambda: state(self._before))
        self._reset()
        self.calls = self._attempt("count", 0)[1]
        self.new, _ = forked(lambda: state(self._folder))
        self.trace = [line.split(" ", 1) for line in self._trace.read_text().splitlines()]

    def unsafe(self) -> list[str]:
        """Return what a power cut after the manifest's renaming could take of the new state.

        A file is safe once it was flushed after its last write, and a name once its folder was.
        """
        manifest = str(self._folder / "MANIFEST.json")
        live = [str(self._folder / file.path) for file in read_manifest(self._folder).files]
        unsafe: set[str] = set()
        moved, found = "", []
        for call, path in self.trace:
            if call == "from":
                moved = path
            elif call.startswith("rename"):
                if path == manifest:
                    found += [name for name in [*live, moved] if name in unsafe]
                    found += [place for place in self._places(live) if f"{place} named" in unsafe]
                unsafe |= {f"{path} named"} | ({path} if moved in unsafe else set())
            elif call.startswith(("open", "mkdir", "link")):
                unsafe |= {f"{path} named"}
            elif call in {"fsync", "fdatasync"}:
                unsafe -= {path}
                unsafe -= {name for name in unsafe if str(Path(name).parent) == path}
            elif not call.startswith(("unlink", "rmdir")):
                unsafe |= {path}
        return found + [name for name in (manifest, f"{manifest} named") if name in unsafe]

    def _places(self, live: list[str]) -> set[str]:
        """Return live files and the folders that they lie in."""
        parents = {str(parent) for name in live for parent in Path(name).parents}
        return {*live, *(place for place in parents if place.startswith(f"{self._folder}/"))}

    def outcome(self, kind: str, at: int) -> Outcome:
        """Let the call number `at` go wrong."""
        self._reset()
        error, calls = self._attempt(kind, at)
        left, problems = forked(lambda: state(self._folder))
        forked(lambda: self._operate(self._folder))
        again, more = forked(lambda: state(self._folder))
        return Outcome(
            kind=kind,
            at=at,
            died=calls < 0,
            error=error,
            state=self._name(left),
            problems=problems + more,
            again=self._name(again),
            leftovers=forked(lambda: leftovers(self._folder)),
        )

    def _attempt(self, kind: str, at: int) -> tuple[str, int]:
        """Return the error's text and how many calls there were; −1 if the process died."""

        def work() -> tuple[str, int]:
            shim = ctypes.CDLL(None)
            with self._trace.open("wb") as trace:
                shim.fault_trace(os.dup(trace.fileno()))
            shim.fault_arm(str(self._folder).encode(), KINDS[kind], ctypes.c_long(at))
            error = ""
            try:
                self._operate(self._folder)
            except DupMAEError as raised:
                error = str(raised)
            calls = shim.fault_calls()
            shim.fault_arm(b"", 0, ctypes.c_long(0))
            return error, calls

        return forked(work, dead=("", -1))

    def _name(self, found: str) -> str:
        return "new" if found == self.new else "old" if found == self.old else found

    def _reset(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._before.exists():
            shutil.copytree(self._before, self._folder)


def forked(work: Callable[[], Any], dead: Any = None) -> Any:
    """Return what `work` returns in a process of its own; `dead` if that was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(work(), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and dead is not None:
        return dead
    assert status == 0, f"a process ended with {status}"
    return pickle.loads(content)


def main() -> None:
    place, scenario, *faults = sys.argv[1:]
    attempts = Attempts(Path(place), scenario)
    sys.stdout.write(f"{json.dumps(attempts.unsafe())}\n")
    for kind, positions in (fault.split("=") for fault in faults):
        wanted = attempts.calls if positions == "all" else min(int(positions), attempts.calls)
        for number in range(wanted):
            at = 1 + (2 * number + 1) * attempts.calls // (2 * wanted)
            outcome = attempts.outcome(kind, at if positions != "all" else number + 1)
            sys.stdout.write(f"{json.dumps(asdict(outcome))}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)  # a child must not go on where its parent was
