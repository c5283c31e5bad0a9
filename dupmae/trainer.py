"""The one training loop: what a `Task` accumulates, it averages, steps, logs, saves and resumes.

All randomness of a step comes from (seed, step, part, rank), so a resumed run draws what an
unbroken one would have drawn, and the checkpoint needs no generator state. Several processes
(`torchrun`) each accumulate their own parts; gradients are averaged over them before the step.

Left out: what a step computes (`pretrain.py`, `finetune.py`).
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, distributed, nn
from tqdm import tqdm

from dupmae.errors import CheckpointError, UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainerSettings:
    """How long, how fast and on what to train."""

    steps: int = 1000
    """Optimizer steps in all."""
    seed: int = 0
    """Start of every random number of the run."""
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
    """Steps between lines of the log, each the mean over them."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"trainer.{name} must be at least 1, found {getattr(self, name)}")
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
        CheckpointError: the checkpoint is of another run (steps, seed, sizes or parameters).
        KeyboardInterrupt: the run was interrupted; what was done is saved.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with process_group(settings) as (rank, world_size):
        folder.mkdir(parents=True, exist_ok=True)
        loop = _Loop(task, settings, folder, rank, world_size)
        loop.resume()
        loop.go()
        if rank == 0:
            task.save(folder / "model")


def resolve_device(name: str) -> torch.device:
    """Turn a device setting into a device; with several processes, each gets its own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(name)


@contextmanager
def process_group(settings: TrainerSettings) -> Iterator[tuple[int, int]]:
    """Join torchrun's processes, if it started this one; yield (rank, number of processes)."""
    if "WORLD_SIZE" not in os.environ:
        yield 0, 1
        return
    on_gpu = resolve_device(settings.device).type == "cuda"
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield distributed.get_rank(), distributed.get_world_size()
    finally:
        distributed.destroy_process_group()


def freeze(model: nn.Module, embeddings: bool, layers: int) -> None:
    """Turn off gradients of the embeddings and of the lowest layers of a BERT body."""
    for name, parameter in model.named_parameters():
        in_embeddings = ".embeddings." in name
        in_low_layer = any(f".encoder.layer.{index}." in name for index in range(layers))
        if (embeddings and in_embeddings) or in_low_layer:
            parameter.requires_grad_(False)


def learning_rate_factor(step: int, settings: TrainerSettings) -> float:
    """Return the share of the peak rate at a step: linear warm-up, then linear decay to 0."""
    warm = settings.warmup * settings.steps
    if step < warm:
        return (step + 1) / (warm + 1)
    return (settings.steps - step) / max(1.0, settings.steps - warm)


def _part_seed(seed: int, step: int, part: int, rank: int) -> int:
    # Distinct for all steps below 2^32, parts and ranks below 2^12; the generator mixes the bits.
    return (((seed & 0xFF) << 56) | (step << 24) | (part << 12) | rank) & (2**63 - 1)


class _Loop:
    def __init__(
        self, task: Task, settings: TrainerSettings, folder: Path, rank: int, world_size: int
    ) -> None:
        self.task, self.settings, self.folder = task, settings, folder
        self.rank, self.world_size = rank, world_size
        self.device = resolve_device(settings.device)
        task.model.to(self.device)
        freeze(task.model, settings.freeze_embeddings, settings.freeze_layers)
        self.parameters = [p for p in task.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self._groups(), lr=settings.learning_rate)
        self.step = 0
        self.interrupted = False
        self.log_path = folder / "log.jsonl"

    def _groups(self) -> list[dict[str, Any]]:
        decay = [p for p in self.parameters if p.ndim >= 2]
        plain = [p for p in self.parameters if p.ndim < 2]
        return [
            {"params": decay, "weight_decay": self.settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]

    @property
    def _run_identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to go on bit for bit."""
        s = self.settings
        return {
            "steps": s.steps,
            "seed": s.seed,
            "batch_size": s.batch_size,
            "accumulation": s.accumulation,
            "world_size": self.world_size,
            "learning_rate": s.learning_rate,
            "warmup": s.warmup,
        }

    def resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            self.log_path.unlink(missing_ok=True)
            return
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}); delete it to start the run anew"
            ) from error
        if state["run"] != self._run_identity:
            found = {k: v for k, v in state["run"].items() if v != self._run_identity.get(k)}
            raise CheckpointError(
                f"{path} is of another run ({found} there); use another --out, or delete it"
            )
        try:
            self.task.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} does not fit this model: {error}") from error
        self.step = state["step"]
        if self.rank == 0:
            _cut_log(self.log_path, self.step)
        logger.info("resumed from step %d of %d", self.step, self.settings.steps)

    def go(self) -> None:
        started, begun_at = time.monotonic(), self.step
        sums: dict[str, float] = {}
        count = 0
        bar = tqdm(
            total=self.settings.steps,
            initial=self.step,
            unit="step",
            disable=True if self.rank else None,
            dynamic_ncols=True,
        )
        if self.step == 0:
            self._log({"step": 0, **self._probe()})
        with self._catch_signals(), bar:
            while self.step < self.settings.steps and not self.interrupted:
                for name, value in self._take_step().items():
                    sums[name] = sums.get(name, 0.0) + value
                count += 1
                bar.update()
                if self.step % self.settings.log_every == 0 or self._is_last():
                    rate = self._rate(self.step - begun_at, time.monotonic() - started)
                    means = {name: value / count for name, value in sums.items()}
                    self._log({"step": self.step, **means, "sequences_per_s": round(rate, 2)})
                    bar.set_postfix({k: f"{v:.3f}" for k, v in means.items()} | {"seq/s": rate})
                    sums, count = {}, 0
                self._visit_milestones()
        if self.interrupted:
            self._save_checkpoint()
            logger.warning("stopped after step %d; the same command goes on from there", self.step)
            raise KeyboardInterrupt

    def _is_last(self) -> bool:
        return self.step == self.settings.steps

    def _rate(self, steps: int, seconds: float) -> float:
        s = self.settings
        return steps * s.batch_size * s.accumulation * self.world_size / max(seconds, 1e-9)

    def _take_step(self) -> dict[str, float]:
        s = self.settings
        self.task.model.train()
        factor = learning_rate_factor(self.step, s)
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, float] = {}
        for index in range(s.accumulation):
            for name, value in self.task.accumulate(self._part(index)).items():
                losses[name] = losses.get(name, 0.0) + value / s.accumulation
        losses = self._average(losses)
        if not math.isfinite(losses["loss"]):
            raise CheckpointError(
                f"the loss is {losses['loss']} at step {self.step}; lower trainer.learning_rate "
                f"and start again from the last checkpoint in {self.folder}"
            )
        norm = nn.utils.clip_grad_norm_(self.parameters, s.max_grad_norm or math.inf)
        self.optimizer.step()
        self.step += 1
        return {**losses, "grad_norm": float(norm), "learning_rate": s.learning_rate * factor}

    def _part(self, index: int) -> Part:
        s = self.settings
        seed = _part_seed(s.seed, self.step, index, self.rank)
        torch.manual_seed(seed)  # dropout
        autocast: Callable[[], AbstractContextManager[None]] = nullcontext
        if s.precision == "bf16":
            autocast = lambda: torch.autocast(self.device.type, torch.bfloat16)  # noqa: E731
        generator = torch.Generator().manual_seed(seed)
        return Part(
            self.step, index, s.accumulation, self.rank, self.world_size, generator, autocast
        )

    def _average(self, losses: dict[str, float]) -> dict[str, float]:
        """Average gradients and losses over the processes."""
        if self.world_size == 1:
            return losses
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
            parameter.grad /= self.world_size
        values = torch.tensor(list(losses.values()), device=self.device)
        distributed.all_reduce(values)
        means: Tensor = values / self.world_size
        return dict(zip(losses, means.tolist(), strict=True))

    def _visit_milestones(self) -> None:
        s = self.settings
        if (s.probe_every and self.step % s.probe_every == 0) or self._is_last():
            self._log({"step": self.step, **self._probe()})
        if self.step % s.checkpoint_every == 0 or self._is_last():
            self._save_checkpoint()

    def _probe(self) -> dict[str, float]:
        if self.rank:
            return {}
        self.task.model.eval()
        with torch.no_grad():
            return self.task.probe()

    def _save_checkpoint(self) -> None:
        if self.rank:
            return
        state = {
            "run": self._run_identity,
            "step": self.step,
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        part = self.folder / "checkpoint.pt.part"
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / "checkpoint.pt")

    def _log(self, record: Mapping[str, float]) -> None:
        if self.rank or len(record) == 1:
            return
        rounded = {
            name: float(f"{value:.6g}") if isinstance(value, float) else value
            for name, value in record.items()
        }
        with self.log_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")

    @contextmanager
    def _catch_signals(self) -> Iterator[None]:
        def stop(_signal: int, _frame: object) -> None:
            self.interrupted = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _cut_log(path: Path, step: int) -> None:
    """Drop log lines of steps that are about to be done again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
