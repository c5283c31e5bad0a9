"""Load on `python cli.py serve`: requests a second, times and memory, and a soak.

    python benchmarks/server.py my.index --queries queries.jsonl --json server.json

It starts the server itself, on this machine, and asks it from as many threads as there are clients,
each on one connection that it keeps. So clients and server share the processors. Then, for
`--soak` seconds, all at once: see `soak.py`.

What is measured is written to `--json` part by part, and a part that is there, measured with the
same settings, is not measured again: what was stopped goes on with the same command.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from served import Served, percentiles, serving
from soak import soak

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


@dataclass
class _Client:
    """One connection that asks until the end of a measurement."""

    port: int
    bodies: Iterator[bytes]
    end: float
    seconds: list[float] = field(default_factory=list)
    errors: int = 0

    def ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Content-Type": "application/json"}
        while time.monotonic() < self.end:
            started = time.perf_counter()
            try:
                connection.request("POST", "/search", next(self.bodies), headers)
                response = connection.getresponse()
                response.read()
                self.errors += response.status != 200
            except (OSError, http.client.HTTPException):
                self.errors += 1
                connection.close()
            self.seconds.append(time.perf_counter() - started)
        connection.close()


def main() -> None:
    """Measure, and print a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("--model", help="the encoder, if it is not the shipped one")
    parser.add_argument("--queries", type=Path, help="queries.jsonl of BEIR, or a query a line")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each number of clients")
    parser.add_argument("--clients", type=int, nargs="*", default=CLIENTS)
    parser.add_argument("--soak", type=float, default=600.0, help="seconds; 0 leaves it out")
    parser.add_argument("--json", type=Path, help="where the figures are, and go")
    options = parser.parse_args()
    queries = QUERIES if options.queries is None else read_queries(options.queries)
    settings = {"index": options.index.name, "queries": len(queries), "seconds": options.seconds}
    report = read_report(options.json, settings)
    for clients in options.clients:
        if str(clients) not in report["load"]:
            with serving(options.index, options.model) as served:
                measure(served, queries, clients=2, seconds=min(2.0, options.seconds))  # warms up
                found = measure(served, queries, clients=clients, seconds=options.seconds)
            keep(options.json, report, "load", {**report["load"], str(clients): found})
    if options.soak and report["soak"].get("asked") != options.soak:
        found = soak(options.index, options.model, queries, options.soak)
        keep(options.json, report, "soak", {"asked": options.soak, **found})


def read_queries(path: Path) -> list[str]:
    """Return the queries of a file of lines, or of a BEIR collection."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in lines]
    return lines


def read_report(path: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a file holds that was measured with these settings, or a report to begin."""
    if path is not None and path.exists():
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if settings.items() <= found.items():
            return found
    machine = {"python": platform.python_version(), "machine": platform.platform()}
    return {**settings, **machine, "processors": os.cpu_count(), "load": {}, "soak": {}}


def keep(path: Path | None, report: dict[str, Any], part: str, found: dict[str, Any]) -> None:
    """Print a part of the report, and write all of it."""
    report[part] = found
    sys.stdout.write(json.dumps({part: found}) + "\n")
    if path is not None:
        path.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def measure(
    served: Served, queries: Sequence[str], *, clients: int, seconds: float
) -> dict[str, Any]:
    """Ask from a number of clients, each with the queries in turn, from another one on.

    Returns:
        What the clients saw, times in milliseconds, and what the server needed.
    """
    bodies = [json.dumps({"query": query}).encode() for query in queries]
    before, busy, started = served.resident_mib(), served.cpu_seconds(), time.monotonic()
    starts = [len(bodies) * client // clients for client in range(clients)]
    asking = [
        _Client(served.port, itertools.cycle(bodies[at:] + bodies[:at]), started + seconds)
        for at in starts
    ]
    threads = [threading.Thread(target=client.ask) for client in asking]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - started
    times = [second for client in asking for second in client.seconds]
    return {
        "requests_per_second": round(len(times) / took, 1),
        **percentiles(times),
        "errors": sum(client.errors for client in asking),
        "cpu_ms_per_request": round(1000 * (served.cpu_seconds() - busy) / len(times), 1),
        "resident_mib": [before, served.resident_mib()],
    }


if __name__ == "__main__":
    main()
