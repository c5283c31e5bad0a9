"""The command that measures the server, for seconds in place of minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "server.py"


@pytest.mark.slow
def test_load_and_soak_are_measured_without_error_and_once(indexed: Path, model: Path) -> None:
    queries, report = indexed.with_name("queries.jsonl"), indexed.with_name("server.json")
    queries.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("ba be", "ki ko")))
    command = [sys.executable, str(SCRIPT), str(indexed), "--model", str(model)]
    command += ["--queries", str(queries), "--seconds", "0.5", "--soak", "4"]
    command += ["--json", str(report), "--clients", "1"]
    for clients in ([], ["8"]):  # the second run goes on where the first one stopped
        ran = subprocess.run([*command, *clients], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
    assert [list(json.loads(line)) for line in ran.stdout.splitlines()] == [["load"]]
    found = json.loads(report.read_text())
    for clients in ("1", "8"):
        assert found["load"][clients]["errors"] == 0
        assert found["load"][clients]["requests_per_second"] > 0
    soak = found["soak"]
    assert soak["errors"] == {}
    assert soak["writes"] == soak["reloads"] > 1
    assert min(soak["killed"], soak["stalled"], soak["searches_per_second"]) > 0
