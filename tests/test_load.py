"""Many readers and a writer at once: no error, no wrong answer, whether writers are killed or not.

The long runs are set by DUPMAE_LOAD_SECONDS and DUPMAE_LOAD_KILLS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECONDS = int(os.environ.get("DUPMAE_LOAD_SECONDS", "300"))
KILLS = int(os.environ.get("DUPMAE_LOAD_KILLS", "50"))

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the processes are forks, tried on Linux only"
)


def load(place: Path, *, seconds: int = 0, kills: int = 0, seed: int = 1) -> dict[str, Any]:
    program = Path(__file__).with_name("load.py")
    ran = subprocess.run(
        [sys.executable, program, place, str(seconds), str(kills), str(seed)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    sys.stdout.write(ran.stdout)
    outcome: dict[str, Any] = json.loads(ran.stdout)
    assert outcome["problems"] == []
    assert min(outcome[name] for name in ("operations", "answers", "reloads", "states")) > 0
    return outcome


@pytest.mark.slow
def test_readers_beside_a_writer_answer_by_the_state_they_opened(tmp_path: Path) -> None:
    load(tmp_path, seconds=10)


@pytest.mark.slow
def test_writers_killed_under_load_lose_nothing(tmp_path: Path) -> None:
    load(tmp_path, kills=5, seed=2)


@pytest.mark.long
@pytest.mark.slow
def test_readers_beside_a_writer_for_long(tmp_path: Path) -> None:
    assert load(tmp_path, seconds=SECONDS, seed=3)["seconds"] >= SECONDS


@pytest.mark.long
@pytest.mark.slow
def test_many_writers_killed_under_load_lose_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, kills=KILLS, seed=4)["kills"] == KILLS
