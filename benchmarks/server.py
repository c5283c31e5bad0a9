"""Load on `python cli.py serve`: requests a second, times and memory, by how many ask at once.

    python benchmarks/server.py my.index --queries queries.txt --seconds 60 --json server.json

It starts the server itself, on this machine, and asks it from as many threads as there are clients,
each on one connection that it keeps. So clients and server share the processors.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

CLIENTS = (1, 8, 64)
QUERIES = (
    "wait until a thread has finished",
    "parse a date from a string",
    "sort a list of dictionaries by several keys",
    "read a compressed file line by line",
    "how do I open a socket that listens",
    "round a decimal number half up",
    "copy a folder with all that is in it",
    "send a mail with an attachment",
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a number of clients saw, times in milliseconds, and what the server's memory did."""

    clients: int
    requests_per_second: float
    p50: float
    p95: float
    p99: float
    errors: int
    resident_before_mib: float
    resident_after_mib: float


@dataclass
class _Client:
    """One connection that asks until the end of a measurement."""

    port: int
    body: Iterator[bytes]
    end: float
    seconds: list[float] = field(default_factory=list)
    errors: int = 0

    def ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Content-Type": "application/json"}
        while time.monotonic() < self.end:
            started = time.perf_counter()
            try:
                connection.request("POST", "/search", next(self.body), headers)
                response = connection.getresponse()
                response.read()
                self.errors += response.status != 200
            except (OSError, http.client.HTTPException):
                self.errors += 1
                connection.close()
            self.seconds.append(time.perf_counter() - started)
        connection.close()


def main() -> None:
    """Measure, and print a line for each number of clients."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("--model", help="the encoder, if it is not the shipped one")
    parser.add_argument("--queries", type=Path, help="a file of queries, one a line")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    queries = QUERIES
    if options.queries is not None:
        queries = tuple(filter(str.strip, options.queries.read_text("utf-8").splitlines()))
    with serving(options.index, options.model) as (port, process):
        measure(port, process.pid, queries, clients=2, seconds=2)  # warms up
        figures = []
        for clients in options.clients:
            found = measure(port, process.pid, queries, clients=clients, seconds=options.seconds)
            figures.append(asdict(found))
            sys.stdout.write(json.dumps(figures[-1]) + "\n")
    if options.json is not None:
        machine = {"python": platform.python_version(), "machine": platform.platform()}
        content = {"seconds": options.seconds, "queries": len(queries), **machine}
        options.json.write_text(json.dumps(content | {"figures": figures}, indent=2) + "\n")


@contextmanager
def serving(index: Path, model: str | None) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run the server on an index; give its port and process."""
    command = [sys.executable, "-m", "dupmae", "serve", "--index", str(index), "--port", "0"]
    command += [] if model is None else ["--model", model]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r":(\d+)$", said.strip())
        if found is None:
            raise SystemExit(said + process.stderr.read())
        try:
            yield int(found[1]), process
        finally:
            process.terminate()


def measure(
    port: int, process: int, queries: Sequence[str], *, clients: int, seconds: float
) -> Figures:
    """Ask from a number of clients for some seconds, each with the queries in turn."""
    bodies = [json.dumps({"query": query}).encode() for query in queries]
    before, started = resident_mib(process), time.monotonic()
    starts = (at % len(bodies) for at in range(clients))
    asking = [
        _Client(port, itertools.cycle(bodies[at:] + bodies[:at]), started + seconds)
        for at in starts
    ]
    threads = [threading.Thread(target=client.ask) for client in asking]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - started
    times = sorted(1000 * second for client in asking for second in client.seconds)
    p50, p95, p99 = (times[min(len(times) - 1, int(len(times) * at))] for at in (0.5, 0.95, 0.99))
    return Figures(
        clients=clients,
        requests_per_second=round(len(times) / took, 1),
        p50=round(p50, 1),
        p95=round(p95, 1),
        p99=round(p99, 1),
        errors=sum(client.errors for client in asking),
        resident_before_mib=before,
        resident_after_mib=resident_mib(process),
    )


def resident_mib(process: int) -> float:
    """Return the memory that a process holds, mapped files included."""
    status = Path(f"/proc/{process}/status").read_text()
    (kib,) = re.findall(r"^VmRSS:\s+(\d+) kB$", status, flags=re.MULTILINE)
    return round(int(kib) / 1024, 1)


if __name__ == "__main__":
    main()
