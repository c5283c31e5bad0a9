"""The processes of a training run: one, or several that torchrun started."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn

from dupmae.errors import UsageError


@dataclass(frozen=True)
class Processes:
    """This process's place among all; with one process alone every method is free."""

    rank: int
    world_size: int
    device: torch.device

    def share_weights(self, model: nn.Module) -> None:
        """Give every process the weights of the first: equal starts are what averaging needs."""
        if self.world_size > 1:
            for tensor in model.state_dict().values():
                distributed.broadcast(tensor, src=0)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes.

        A parameter that no process used keeps None, so that the optimizer leaves it alone as it
        does with one process.
        """
        if self.world_size == 1:
            return
        used = torch.tensor([p.grad is not None for p in parameters], device=self.device).int()
        distributed.all_reduce(used)
        for parameter, users in zip(parameters, used.tolist(), strict=True):
            if users:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                distributed.all_reduce(parameter.grad)
                parameter.grad /= self.world_size

    def average(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return each value's mean over the processes; all must hold the same names in order."""
        if self.world_size == 1:
            return dict(values)
        sums = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        means: list[float] = (sums / self.world_size).tolist()
        return dict(zip(values, means, strict=True))

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.world_size > 1:
            distributed.barrier()

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; the answer is the same in all."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor(int(flag), device=self.device)
        distributed.all_reduce(flags)
        return bool(flags)


def resolve_device(name: str) -> torch.device:
    """Turn torch's name of a device, or "auto" for a GPU if there is one, into a device.

    With several processes each gets a GPU of its own.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0]  # torch goes on and on
        raise UsageError(f"device {name!r} cannot be used: {reason}") from None
    return device


@contextmanager
def process_group(device: torch.device) -> Iterator[Processes]:
    """Join torchrun's processes, if it started this one, and part from them at the end.

    A group that is there already is used and stays.
    """
    if distributed.is_initialized():
        yield Processes(distributed.get_rank(), distributed.get_world_size(), device)
        return
    if "WORLD_SIZE" not in os.environ:
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL sends Python objects by way of the current one
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM in a list instead of dying of them.

    All of them: under torchrun a process gets one from the terminal and one from its parent.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # Python gives signals to the main thread only
        return
    before = {
        number: signal.signal(number, lambda received, _frame: caught.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
