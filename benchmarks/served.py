"""A server of an index as a process of its own, and what can be seen of it from outside."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs at 127.0.0.1."""

    port: int
    process: int

    def resident_mib(self) -> float:
        """Return the memory that it holds, mapped files included."""
        return round(int(self._status("VmRSS")) / 1024, 1)

    def threads(self) -> int:
        """Return how many threads it has."""
        return int(self._status("Threads"))

    def open_files(self) -> int:
        """Return how many files and connections it holds open."""
        return len(list(Path(f"/proc/{self.process}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        """Return how long its threads that live have run."""
        tasks = Path(f"/proc/{self.process}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def _status(self, name: str) -> str:
        status = Path(f"/proc/{self.process}/status").read_text()
        (value,) = re.findall(rf"^{name}:\s+(\d+)", status, flags=re.MULTILINE)
        return str(value)


@contextmanager
def serving(index: Path, model: str | None, *options: str) -> Iterator[Served]:
    """Run the server on an index until the end; what it says goes to stderr."""
    command = [sys.executable, "-m", "dupmae", "serve", "--index", str(index), "--port", "0"]
    command += [*([] if model is None else ["--model", model]), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r":(\d+)$", said.strip())
        if found is None:
            raise SystemExit(said + process.stderr.read())
        threading.Thread(target=sys.stderr.writelines, args=(process.stderr,), daemon=True).start()
        try:
            yield Served(int(found[1]), process.pid)
        finally:
            process.terminate()


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return milliseconds that half of the times, 95 % and 99 % do not exceed."""
    times = sorted(1000 * second for second in seconds) or [0.0]
    places = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {
        name: round(times[min(len(times) - 1, int(len(times) * at))], 1)
        for name, at in places.items()
    }
