"""The folder of a training run: its config, its checkpoint, its log.

config.toml     every setting, defaults included
checkpoint.pt   step, weights, optimizer, and which run it is
log.jsonl       one line for every few steps, and one for every probe
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dupmae.config import flat_config, load_config, save_config
from dupmae.errors import CheckpointError, UsageError
from dupmae.files import replacing
from dupmae.folder import first_line

_CHECKPOINT = "checkpoint.pt"
_FREE_SETTINGS = frozenset(
    f"trainer.{name}"
    for name in ("checkpoint_every", "probe_every", "log_every", "threads", "device")
)
"""What a resumed run may change: it decides what is seen, not what is learned."""


def settle_config(config: object, folder: Path, free: Collection[str] = ()) -> None:
    """Write the resolved config into a run's folder, as `config.toml`.

    If a checkpoint is there, the config must be the one that the run was begun with, so that it
    goes on as if it had never stopped.

    Args:
        config: a config class with a field `trainer`.
        folder: made if it is missing.
        free: dotted keys that may change all the same, besides those of the trainer that do not
            alter what is learned.

    Raises:
        UsageError: the run in `folder` was begun with other settings.
    """
    path = folder / "config.toml"
    if has_checkpoint(folder) and path.exists():
        begun = flat_config(load_config(path, type(config), {}))
        now = flat_config(config)
        for key in sorted((begun.keys() | now.keys()) - {*free, *_FREE_SETTINGS}):
            if begun.get(key) != now.get(key):
                raise UsageError(
                    f"the run in {folder} was begun with {key} = {begun.get(key)!r}, not "
                    f"{now.get(key)!r}; set it back to go on, or use another folder"
                )
    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, path)


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run in this folder would be resumed."""
    return (folder / _CHECKPOINT).exists()


def save_checkpoint(
    folder: Path,
    run: Mapping[str, Any],
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Replace the folder's checkpoint.

    Raises:
        CheckpointError: it cannot be written; the one before it is untouched.
    """
    path = folder / _CHECKPOINT
    state = {
        "run": dict(run),
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    try:
        with replacing(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch wraps the file's own errors
        raise CheckpointError(
            f"{path} cannot be written ({first_line(error)}); the one before it, if any, is "
            "untouched: free some space and run the same command to go on from there"
        ) from error


def load_checkpoint(
    folder: Path,
    run: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Restore model and optimizer and return the step; 0 if there is no checkpoint.

    Args:
        folder: of the run.
        run: must equal what the checkpoint was saved with.
        model: filled in place, wherever it lies.
        optimizer: of the model's parameters.

    Raises:
        CheckpointError: the checkpoint is damaged, of another run or of another model.
    """
    path = folder / _CHECKPOINT
    if not path.exists():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found, step = dict(state["run"]), int(state["step"])
    except Exception as error:  # of any kind: what torch raises depends on the damage
        raise CheckpointError(
            f"{path} cannot be read ({first_line(error)}); delete it to start the run anew"
        ) from error
    others = [
        f"{key} = {found.get(key)}, not {run[key]}" for key in run if found.get(key) != run[key]
    ]
    if others:
        raise CheckpointError(
            f"{path} is of a run with {', '.join(others)}; use another folder, or delete it"
        )
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} does not fit this model: {first_line(error)}") from error
    return step


class RunLog:
    """`log.jsonl` of a run; lines are in the order of their steps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, step: int, measures: Mapping[str, float]) -> None:
        """Add a line, each measure with six digits; nothing if there are no measures."""
        if not measures:
            return
        rounded = {name: float(f"{value:.6g}") for name, value in measures.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | rounded) + "\n")

    def cut(self, step: int) -> None:
        """Drop the lines of steps after `step`: they are about to be done again.

        A line that cannot be read was being written when the machine went down; it goes too.
        """
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step(line) <= step]
        with replacing(self.path) as file:
            file.write("".join(f"{line}\n" for line in kept).encode())


class Means:
    """Means of measures over steps."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, measures: Mapping[str, float]) -> None:
        """Take in the measures of one more step; an absent one counts as 0."""
        for name, value in measures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def take(self) -> tuple[dict[str, float], int]:
        """Return the means since the last call, and over how many steps they are."""
        count = self._count
        means = {name: value / count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means, count


def _step(line: str) -> float:
    try:
        record: Any = json.loads(line)
        return float(record["step"])
    except (ValueError, TypeError, KeyError):
        return float("inf")
