"""A task that trains in microseconds: a linear map with dropout, on data made from each part."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from dupmae.trainer import Part


class ToyTask:
    """Fits a linear map to y = Σx; remembers what the loop asked of it."""

    def __init__(self, seed: int = 0, dropout: float = 0.2) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Dropout(dropout), nn.Linear(4, 3), nn.Linear(3, 1))
        self.unused = nn.Parameter(torch.ones(2, 2))
        self.model.register_parameter("unused", self.unused)
        self.modes: list[bool] = []
        self.parts: list[tuple[int, int, int]] = []
        self.probed_at: list[int] = []
        self.batch = 6

    def accumulate(self, part: Part) -> dict[str, float]:
        self.parts.append((part.step, part.index, part.rank))
        self.modes.append(self.model.training)
        inputs = torch.randn(self.batch, 4, generator=part.generator)
        with part.autocast():
            outputs = self.model(inputs).float()
        loss = (outputs - inputs.sum(dim=1, keepdim=True)).square().mean()
        (loss / part.of).backward()
        return {"loss": float(loss.detach()), "half": float(loss.detach()) / 2}

    def probe(self) -> dict[str, float]:
        assert not self.model.training
        assert not torch.is_grad_enabled()
        self.probed_at.append(len({step for step, _, _ in self.parts}))
        return {"probe_norm": float(sum(p.norm() for p in self.model.parameters()))}

    def save(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        torch.save(self.model.state_dict(), folder / "weights.pt")


class SpoiltTask(ToyTask):
    """One part's loss, or its gradient alone, is not finite."""

    def __init__(self, at_step: int, *, gradient_only: bool) -> None:
        super().__init__()
        self.at_step, self.gradient_only = at_step, gradient_only

    def accumulate(self, part: Part) -> dict[str, float]:
        losses = super().accumulate(part)
        if part.step == self.at_step:
            grad = self.model[1].weight.grad
            assert grad is not None
            grad[0, 0] = math.inf
            losses["loss"] = losses["loss"] if self.gradient_only else math.nan
        return losses
