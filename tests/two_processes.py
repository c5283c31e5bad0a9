"""Run by torchrun in two processes (test_processes.py); each writes what it saw as JSON.

Arguments: a folder with a start model and rows, where results go as well.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tiny_finetune import EVERY_LOSS, frozen_config, tiny_config
from torch import nn
from toy_task import ToyTask

from dupmae.batch import BatchSource
from dupmae.data import Row
from dupmae.finetune import FinetuneConfig, finetune
from dupmae.processes import Processes, process_group
from dupmae.trainer import Part, TrainerSettings, run

SETTINGS = TrainerSettings(steps=6, batch_size=6, checkpoint_every=4, log_every=1, device="cpu")


def configs(folder: Path, batch_size: int) -> dict[str, FinetuneConfig]:
    """Return the runs that one process and two must do alike."""
    size = {"batch_size": batch_size}
    late = replace(EVERY_LOSS, late_scale=0.3)
    return {
        "trained": tiny_config(folder, trainer=size),
        "frozen": frozen_config(folder, trainer=size, loss=late),
    }


def share_rows() -> None:
    """Give each process its share of one order, so that one process can draw the same rows."""

    def draw_rows(source: BatchSource, part: Part, batch_size: int) -> list[Row]:
        first = part.position * batch_size
        return [source.files[0][number % 18] for number in range(first, first + batch_size)]

    BatchSource._draw_rows = draw_rows  # type: ignore[method-assign]


class InterruptedInOne(ToyTask):
    """The second process alone gets a signal, in its second step."""

    def accumulate(self, part: Part) -> dict[str, float]:
        if (part.step, part.rank) == (1, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return super().accumulate(part)


def interrupt_and_resume(folder: Path, rank: int) -> dict[str, Any]:
    """Return after how many steps this process stopped, and with what weights it ended."""
    task = InterruptedInOne(seed=rank)
    try:
        run(task, SETTINGS, folder)
    except KeyboardInterrupt:
        stopped_after = len(task.parts)
    task = ToyTask(seed=7 + rank)
    run(task, SETTINGS, folder)
    return {"stopped_after": stopped_after, "rest": len(task.parts), "weights": _weights(task)}


def unbroken(folder: Path, rank: int) -> dict[str, Any]:
    """Return the same run's weights without a break; processes begin with different ones."""
    task = ToyTask(seed=rank)
    run(task, SETTINGS, folder)
    return {"weights": _weights(task), "saved": (folder / "model").exists()}


def averages(processes: Processes) -> dict[str, Any]:
    """Return what is left of parameters that both, one or none of the processes used."""
    both, one, none = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    both.grad = torch.full((2,), 1.0 + processes.rank)
    if processes.rank:
        one.grad = torch.full((2,), 5.0)
    processes.average_gradients([both, one, none])
    return {
        "gradients": [None if p.grad is None else p.grad.tolist() for p in (both, one, none)],
        "means": processes.average({"loss": 1.0 + processes.rank, "part": 0.1}),
        "any": [processes.any(processes.rank == 1), processes.any(False)],
    }


def _weights(task: ToyTask) -> list[float]:
    return [value for p in task.model.parameters() for value in p.detach().flatten().tolist()]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    share_rows()
    # One group for all: torchrun's rendezvous serves one a process.
    with process_group(torch.device("cpu")) as processes:
        for name, config in configs(folder, 3).items():
            finetune(config, folder / f"{name}-two")
        seen = {
            "averages": averages(processes),
            "unbroken": unbroken(folder / "unbroken", processes.rank),
            "broken": interrupt_and_resume(folder / "broken", processes.rank),
        }
        (folder / f"seen{processes.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
