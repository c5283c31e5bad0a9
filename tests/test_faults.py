"""Whatever goes wrong at whatever moment, an index is in its old state or in its new one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults import SCENARIOS, Outcome

TESTS = Path(__file__).parent
UNTRUE_OF_A_NEW_STATE = ("is unchanged", "nothing is deleted")
"""What errors say of the old state."""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library that breaks calls, or skip."""
    compiler = shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("faults are injected on Linux, by a library that needs a C compiler")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = TESTS / "faults.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def attempts(shim: Path, place: Path, scenario: str, *faults: str) -> list[Outcome]:
    environment = {**os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, TESTS / "faults.py", place, scenario, *faults],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    unsafe, *outcomes = map(json.loads, ran.stdout.splitlines())
    assert unsafe == [], "a power cut could take it though the manifest names it"
    return [Outcome(**outcome) for outcome in outcomes]


def assert_nothing_is_lost(found: list[Outcome], scenario: str) -> None:
    for outcome in found:
        assert outcome.state in {"old", "new"}, outcome
        assert outcome.problems == [], outcome
        assert (outcome.again, outcome.leftovers) == ("new", []), outcome
        assert "\n" not in outcome.error, outcome
        if not outcome.died and not outcome.error:
            assert outcome.state == "new", outcome
        if outcome.state == "new" and scenario != "compact":  # where both answer alike
            assert not any(said in outcome.error for said in UNTRUE_OF_A_NEW_STATE), outcome


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario", ["update", "delete", "where", "restore", "split-update", "borrow"]
)
def test_a_fault_at_some_calls_loses_nothing(shim: Path, tmp_path: Path, scenario: str) -> None:
    found = attempts(shim, tmp_path, scenario, "kill=4", "full=1", "fail=2")
    assert [outcome.kind for outcome in found if outcome.died] == ["kill"] * 4
    assert len(found) == 7
    assert_nothing_is_lost(found, scenario)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kill", "full", "fail"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_fault_at_any_call_loses_nothing(
    shim: Path, tmp_path: Path, scenario: str, kind: str
) -> None:
    found = attempts(shim, tmp_path, scenario, f"{kind}=all")
    assert {outcome.state for outcome in found} == {"old", "new"} or scenario == "compact"
    assert_nothing_is_lost(found, scenario)
