"""Two gloo processes under torchrun do what one does, begin alike and stop together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_finetune import write_rows, write_start
from two_processes import configs, share_rows

from dupmae.batch import BatchSource
from dupmae.errors import UsageError
from dupmae.finetune import finetune
from dupmae.processes import Processes, process_group, resolve_device

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="torchrun's processes need POSIX here"),
]
SCRIPT = Path(__file__).parent / "two_processes.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which two processes have done all that `two_processes.py` does."""
    folder = tmp_path_factory.mktemp("two")
    write_start(folder / "start")
    write_rows(folder / "rows.jsonl")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    launcher = subprocess.Popen(
        [*command, str(SCRIPT), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = launcher.communicate(timeout=400)
    except subprocess.TimeoutExpired:
        launcher.terminate()  # not kill: it must end processes that wait for each other
        output, _ = launcher.communicate()
    assert launcher.returncode == 0, output[-4000:]
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"seen{rank}.json").read_text()) for rank in (0, 1)]


def log(path: Path) -> list[dict[str, Any]]:
    lines = (path / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "per_s" not in k} for line in lines]


@pytest.mark.parametrize("name", ["trained", "frozen"])
def test_two_processes_fine_tune_as_one_with_all_their_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(BatchSource, "_draw_rows", BatchSource._draw_rows)  # put back at the end
    share_rows()
    runs = folder / f"{name}-one", folder / f"{name}-two"
    finetune(configs(folder, 6)[name], runs[0])
    for file in ("model.safetensors", "heads.safetensors"):
        one, two = (load_file(run / "model" / file) for run in runs)
        for tensor_name, tensor in one.items():
            # Adam turns rounding of gradients that are truly 0 into steps of the learning rate, and
            # of those that are nearly 0 into parts of one.
            if not tensor_name.endswith("attention.self.key.bias"):
                found = two[tensor_name]
                torch.testing.assert_close(found, tensor, rtol=0, atol=5e-5, msg=tensor_name)
    for one_line, two_line in zip(*map(log, runs), strict=True):
        assert two_line == pytest.approx(one_line, rel=1e-3, abs=1e-4)


def test_processes_begin_with_the_weights_of_the_first(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["unbroken"]["weights"] == seen[1]["unbroken"]["weights"]


def test_a_run_returns_in_every_process_once_the_model_is_saved(
    seen: list[dict[str, Any]],
) -> None:
    assert [each["unbroken"]["saved"] for each in seen] == [True, True]


def test_a_signal_to_one_process_stops_all_after_the_same_step(
    seen: list[dict[str, Any]],
) -> None:
    assert [each["broken"]["stopped_after"] for each in seen] == [2, 2]
    assert [each["broken"]["rest"] for each in seen] == [4, 4]


def test_an_interrupted_run_of_two_goes_on_as_if_it_had_never_stopped(
    folder: Path, seen: list[dict[str, Any]]
) -> None:
    assert seen[0]["broken"]["weights"] == seen[1]["broken"]["weights"]
    assert seen[0]["broken"]["weights"] == seen[0]["unbroken"]["weights"]
    assert log(folder / "broken") == log(folder / "unbroken")


def test_gradients_and_losses_are_means_over_processes(seen: list[dict[str, Any]]) -> None:
    for each in seen:
        assert each["averages"]["gradients"] == [[1.5, 1.5], [2.5, 2.5], None]
        assert each["averages"]["means"] == {"loss": 1.5, "part": 0.1}
        assert each["averages"]["any"] == [True, False]


def test_one_process_alone_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group(torch.device("cpu")) as processes:
        assert processes == Processes(0, 1, torch.device("cpu"))
        parameter = torch.nn.Parameter(torch.zeros(2))
        processes.average_gradients([parameter])
        assert parameter.grad is None
        assert processes.average({"loss": 0.1}) == {"loss": 0.1}
        assert processes.any(True)
        assert not processes.any(False)


def test_devices_are_found_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match=r"device 'gpu' cannot be used: "):
        resolve_device("gpu")
