"""The one training loop: what a `Task` accumulates, it averages, steps, logs, saves and resumes.

All randomness of a step comes from (seed, step, part, rank), so a resumed run draws what an
unbroken one would have drawn, and the checkpoint needs no generator state. Several processes
(`torchrun`) each accumulate their own parts; gradients are averaged over them before the step.

Left out: what a step computes (`pretrain.py`, `finetune.py`), how processes talk
(`processes.py`), the files of a run (`run_folder.py`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from dupmae.errors import TrainingError, UsageError
from dupmae.processes import Processes, caught_signals, process_group, resolve_device
from dupmae.run_folder import Means, RunLog, load_checkpoint, save_checkpoint

__all__ = ["Part", "Task", "TrainerSettings", "freeze", "resolve_device", "run"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainerSettings:
    """How long, how fast and on what to train."""

    steps: int = 1000
    """Optimizer steps in all; with 0 the model is saved as it starts."""
    seed: int = 0
    """Start of every random number of the run, ≥ 0."""
    batch_size: int = 32
    """Sequences or queries a part and process."""
    accumulation: int = 1
    """Parts whose gradients are added up before a step."""
    learning_rate: float = 1e-4
    """Peak rate of AdamW."""
    warmup: float = 0.1
    """Fraction of the steps over which the rate rises linearly; then it falls linearly to 0."""
    weight_decay: float = 0.01
    """AdamW's decay, on matrices only."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm; 0 turns that off."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16 computes forward passes in bfloat16 (autocast); weights stay float32."""
    device: str = "auto"
    """"cpu", "cuda", or "auto": a GPU if there is one."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    freeze_embeddings: bool = False
    """Keep the token, position and type embeddings (and the tied MLM projection) as they are."""
    freeze_layers: int = 0
    """Keep the lowest n layers as they are."""
    checkpoint_every: int = 500
    """Steps between checkpoints; the last step always makes one."""
    probe_every: int = 500
    """Steps between probe measures; 0 probes at the start and the end only."""
    log_every: int = 10
    """Steps between lines of the log, each the mean over them, or over those since a resume."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulation", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"trainer.{name} must be at least 1, found {getattr(self, name)}")
        for name in (
            "steps", "seed", "weight_decay", "max_grad_norm", "threads", "freeze_layers",
            "probe_every",
        ):  # fmt: skip
            value = getattr(self, name)
            if value < 0:
                raise UsageError(f"trainer.{name} must not be negative, found {value}")
        if not 0 <= self.warmup <= 1:
            raise UsageError(f"trainer.warmup must lie in [0, 1], found {self.warmup}")
        if self.learning_rate <= 0:
            raise UsageError(f"trainer.learning_rate must be above 0, found {self.learning_rate}")


@dataclass(frozen=True)
class Part:
    """One micro-batch's place in the run, and the randomness that belongs to it alone."""

    step: int
    index: int
    of: int
    rank: int
    world_size: int
    generator: torch.Generator
    autocast: Callable[[], AbstractContextManager[None]]

    @property
    def position(self) -> int:
        """This part's number when all parts of all ranks and steps stand in one row."""
        return (self.step * self.of + self.index) * self.world_size + self.rank


class Task(Protocol):
    """What is trained: a model and how to add a micro-batch's gradients to it."""

    @property
    def model(self) -> nn.Module:
        """All that is trained and kept in checkpoints."""
        ...

    def accumulate(self, part: Part) -> dict[str, float]:
        """Add the gradients of one part, divided by `part.of`; return its losses, "loss" first."""
        ...

    def probe(self) -> dict[str, float]:
        """Measure how well the model retrieves by now."""
        ...

    def save(self, folder: Path) -> None:
        """Write the finished model folder."""
        ...


def run(task: Task, settings: TrainerSettings, folder: Path) -> None:
    """Train to `settings.steps`, from the checkpoint in `folder` if one is there.

    Writes `folder/checkpoint.pt`, `folder/log.jsonl` and, at the end, `folder/model/`. Ctrl-C or
    SIGTERM ends the run after the step under way, with a checkpoint to go on from.

    Raises:
        CheckpointError: the checkpoint is damaged or of another run (steps, seed, sizes or
            parameters), or cannot be written.
        TrainingError: a loss or gradient is not finite.
        KeyboardInterrupt: the run was interrupted; what was done is saved.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with process_group(resolve_device(settings.device)) as processes:
        folder.mkdir(parents=True, exist_ok=True)
        loop = _Loop(task, settings, folder, processes)
        loop.resume()
        loop.go()
        if processes.rank == 0:
            task.save(folder / "model")
        processes.wait()


def freeze(model: nn.Module, embeddings: bool, layers: int) -> None:
    """Turn off gradients of the embeddings and of the lowest layers of a BERT body.

    Raises:
        UsageError: the body has fewer layers.
    """
    low = [f".encoder.layer.{index}." for index in range(layers)]
    names = [name for name, _ in model.named_parameters()]
    if low and not any(low[-1] in name for name in names):
        raise UsageError(f"trainer.freeze_layers is {layers}, but the model has fewer layers")
    for name, parameter in model.named_parameters():
        in_embeddings = ".embeddings." in name
        if (embeddings and in_embeddings) or any(layer in name for layer in low):
            parameter.requires_grad_(False)


def body_is_frozen(model: nn.Module, settings: TrainerSettings) -> bool:
    """Say whether `settings` freeze the whole BERT body of a model."""
    layers = {name.split(".encoder.layer.")[1].split(".")[0]
              for name, _ in model.named_parameters() if ".encoder.layer." in name}  # fmt: skip
    return settings.freeze_embeddings and settings.freeze_layers >= len(layers)


def learning_rate_factor(step: int, settings: TrainerSettings) -> float:
    """Return the share of the peak rate at a step: linear warm-up, then linear decay to 0."""
    warm = settings.warmup * settings.steps
    if step < warm:
        return (step + 1) / (warm + 1)
    return (settings.steps - step) / max(1.0, settings.steps - warm)


def part_seed(seed: int, step: int, part: int, rank: int) -> int:
    """Return the start of one part's random numbers, in [0, 2^32).

    A hash of all four: torch's CPU generator looks at the lowest 32 bits of a seed only, so
    numbers that are merely laid side by side would repeat.
    """
    return int(np.random.SeedSequence([seed, step, part, rank]).generate_state(1)[0])


class _Loop:
    def __init__(
        self, task: Task, settings: TrainerSettings, folder: Path, processes: Processes
    ) -> None:
        self.task, self.settings, self.folder = task, settings, folder
        self.processes = processes
        task.model.to(processes.device)
        freeze(task.model, settings.freeze_embeddings, settings.freeze_layers)
        self.parameters = [p for p in task.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self._groups(), lr=settings.learning_rate)
        self.step = 0
        self.log = RunLog(folder / "log.jsonl")
        self._means = Means()
        self._seconds = 0.0

    def _groups(self) -> list[dict[str, Any]]:
        decay = [p for p in self.parameters if p.ndim >= 2]
        plain = [p for p in self.parameters if p.ndim < 2]
        return [
            {"params": decay, "weight_decay": self.settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]

    @property
    def _run_identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to go on bit for bit, whatever the task."""
        s = self.settings
        return {
            "steps": s.steps,
            "seed": s.seed,
            "batch_size": s.batch_size,
            "accumulation": s.accumulation,
            "world_size": self.processes.world_size,
            "learning_rate": s.learning_rate,
            "warmup": s.warmup,
        }

    def resume(self) -> None:
        self.step = load_checkpoint(
            self.folder, self._run_identity, self.task.model, self.optimizer
        )
        self.processes.share_weights(self.task.model)
        if self.step:
            logger.info("resumed from step %d of %d", self.step, self.settings.steps)
        if self.processes.rank == 0:
            self.log.cut(self.step or -1)  # step 0's probe comes again too

    def go(self) -> None:
        if self.step == 0:
            self._log_probe()
        interrupted = False
        with caught_signals() as caught, self._progress() as progress:
            while self.step < self.settings.steps and not interrupted:
                started = time.perf_counter()
                self._means.add(self._take_step())
                self._seconds += time.perf_counter() - started
                progress.update()
                if self._is_due(self.settings.log_every):
                    means = self._log_means()
                    progress.set_postfix({name: f"{mean:.3g}" for name, mean in means.items()})
                if self._is_due(self.settings.probe_every):
                    self._log_probe()
                if self._is_due(self.settings.checkpoint_every):
                    self._save_checkpoint()
                interrupted = self.processes.any(bool(caught))
            if interrupted:
                self._save_checkpoint()
        if interrupted:
            logger.warning("stopped after step %d; the same command goes on from there", self.step)
            raise KeyboardInterrupt

    def _is_due(self, every: int) -> bool:
        """Return whether this step is the last or closes a period; `every` 0 has no periods."""
        return self.step == self.settings.steps or bool(every and self.step % every == 0)

    def _progress(self) -> tqdm[Any]:
        return tqdm(
            total=self.settings.steps,
            initial=self.step,
            unit="step",
            disable=True if self.processes.rank else None,
            dynamic_ncols=True,
        )

    def _take_step(self) -> dict[str, float]:
        s = self.settings
        self.task.model.train()
        factor = learning_rate_factor(self.step, s)
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        parts = Means()
        for index in range(s.accumulation):
            parts.add(self.task.accumulate(self._part(index)))
        self.processes.average_gradients(self.parameters)
        losses = self.processes.average(parts.take()[0])
        norm = nn.utils.clip_grad_norm_(self.parameters, s.max_grad_norm or math.inf)
        self._check_finite("loss", losses["loss"])
        self._check_finite("gradient's norm", float(norm))
        self.optimizer.step()
        self.step += 1
        return {**losses, "grad_norm": float(norm), "learning_rate": s.learning_rate * factor}

    def _check_finite(self, name: str, value: float) -> None:
        """Stop before the weights are spoilt; going on would meet the same number again."""
        if not math.isfinite(value):
            raise TrainingError(
                f"the {name} became {value} in step {self.step + 1}; the last checkpoint in "
                f"{self.folder} is kept, but begin again in another folder with a lower "
                "trainer.learning_rate, or in float32"
            )

    def _part(self, index: int) -> Part:
        s, processes = self.settings, self.processes
        seed = part_seed(s.seed, self.step, index, processes.rank)
        torch.manual_seed(seed)  # dropout
        autocast: Callable[[], AbstractContextManager[None]] = nullcontext
        if s.precision == "bf16":
            autocast = partial(torch.autocast, processes.device.type, torch.bfloat16)
        return Part(
            self.step,
            index,
            s.accumulation,
            processes.rank,
            processes.world_size,
            torch.Generator().manual_seed(seed),
            autocast,
        )

    def _log_means(self) -> dict[str, float]:
        """Log and return the means of the steps since the last time, and their speed."""
        s = self.settings
        means, steps = self._means.take()
        sequences = steps * s.batch_size * s.accumulation * self.processes.world_size
        means["sequences_per_s"] = sequences / self._seconds
        self._seconds = 0.0
        if self.processes.rank == 0:
            self.log.append(self.step, means)
        return means

    def _log_probe(self) -> None:
        if self.processes.rank == 0:
            self.task.model.eval()
            with torch.no_grad():
                self.log.append(self.step, self.task.probe())

    def _save_checkpoint(self) -> None:
        if self.processes.rank == 0:
            save_checkpoint(
                self.folder, self._run_identity, self.step, self.task.model, self.optimizer
            )
        self.processes.wait()  # or one that has ended would end this one before it is written
