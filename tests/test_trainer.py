"""The loop: its schedule, and that nothing that stops a run changes what comes out in the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import tiny_model
from torch import Tensor, nn
from toy_task import SpoiltTask, ToyTask

from dupmae.errors import CheckpointError, TrainingError, UsageError
from dupmae.trainer import (
    Part,
    TrainerSettings,
    body_is_frozen,
    freeze,
    learning_rate_factor,
    part_seed,
    run,
)

SETTINGS = TrainerSettings(
    steps=10,
    batch_size=6,
    accumulation=2,
    learning_rate=0.05,
    checkpoint_every=4,
    probe_every=4,
    log_every=2,
    device="cpu",
)


def weights(folder: Path) -> dict[str, Tensor]:
    saved: dict[str, Tensor] = torch.load(folder / "model" / "weights.pt", weights_only=True)
    return saved


def log(folder: Path) -> list[dict[str, Any]]:
    """Return the log without what depends on the machine."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "per_s" not in k} for line in lines]


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trainer") / "unbroken"
    run(ToyTask(), SETTINGS, folder)
    return folder


@pytest.fixture
def unbroken(run_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_once, tmp_path / "unbroken"))


def assert_same_run(folder: Path, unbroken: Path) -> None:
    torch.testing.assert_close(weights(folder), weights(unbroken), rtol=0, atol=0)
    assert log(folder) == log(unbroken)


def test_the_rate_rises_linearly_then_falls_linearly_to_nothing() -> None:
    settings = TrainerSettings(steps=10, warmup=0.2)
    factors = [learning_rate_factor(step, settings) for step in range(11)]
    assert factors == pytest.approx([1 / 3, 2 / 3, *(n / 8 for n in range(8, -1, -1))])


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0])
def test_every_step_has_a_rate_above_nothing_and_up_to_the_peak(warmup: float) -> None:
    settings = TrainerSettings(steps=7, warmup=warmup)
    factors = [learning_rate_factor(step, settings) for step in range(7)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) > 0.8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", -1), ("batch_size", 0), ("accumulation", -1), ("checkpoint_every", 0),
        ("log_every", 0), ("probe_every", -1), ("seed", -1), ("threads", -1), ("warmup", 1.5),
        ("learning_rate", 0.0), ("weight_decay", -0.1), ("max_grad_norm", -1.0),
        ("freeze_layers", -1),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"trainer\.{name} must .*, found {value}"):
        TrainerSettings(**{name: value})


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    for device in ("gpu", "cuda:77"):
        with pytest.raises(UsageError, match=rf"device '{device}' cannot be used: "):
            run(ToyTask(), replace(SETTINGS, device=device), tmp_path)


def test_every_step_part_rank_and_seed_draws_other_numbers() -> None:
    # 256 and more: torch's generator ignores all but 32 bits of what it is seeded with.
    seeds = [0, 1, 128, 2**32, 2**63]
    places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (256, 0, 0), (10**6, 7, 3)]
    drawn = {
        tuple(
            torch.rand(4, generator=torch.Generator().manual_seed(part_seed(seed, *place))).tolist()
        )
        for seed in seeds
        for place in places
    }
    assert len(drawn) == len(seeds) * len(places)


def test_parts_are_numbered_through_steps_parts_and_ranks() -> None:
    positions = [
        Part(step, index, 3, rank, 2, torch.Generator(), torch.no_grad).position
        for step in range(2)
        for index in range(3)
        for rank in range(2)
    ]
    assert positions == list(range(12))


def test_the_log_holds_means_rates_speed_and_probes(unbroken: Path) -> None:
    lines = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], "loss" in line) for line in lines] == [
        (0, False), (2, True), (4, True), (4, False), (6, True), (8, True), (8, False),
        (10, True), (10, False),
    ]  # fmt: skip
    means = [line for line in lines if "loss" in line]
    assert all(line["half"] == pytest.approx(line["loss"] / 2, rel=1e-5) for line in means)
    assert all(line["sequences_per_s"] > 0 for line in means)
    rates = [0.05 * learning_rate_factor(step, SETTINGS) for step in range(10)]
    assert [line["learning_rate"] for line in means] == pytest.approx(
        [(rates[step] + rates[step + 1]) / 2 for step in range(0, 10, 2)], rel=1e-5
    )
    assert means[-1]["loss"] < means[0]["loss"]


def test_no_steps_save_the_model_as_it_starts(tmp_path: Path) -> None:
    task = ToyTask()
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    run(task, replace(SETTINGS, steps=0), tmp_path)
    assert (tmp_path / "model").exists()
    assert all(torch.equal(before[name], task.model.state_dict()[name]) for name in before)


def test_steps_train_and_probes_do_not(tmp_path: Path) -> None:
    task = ToyTask()
    run(task, replace(SETTINGS, probe_every=0), tmp_path)
    assert set(task.modes) == {True}
    assert task.probed_at == [0, 10]
    assert task.parts == [(step, index, 0) for step in range(10) for index in range(2)]


def test_an_accumulated_step_equals_one_step_on_all_of_its_data(tmp_path: Path) -> None:
    class Whole(ToyTask):
        """Draws in one part what the accumulating task draws in two."""

        def accumulate(self, part: Part) -> dict[str, float]:
            halves = [
                torch.Generator().manual_seed(part_seed(0, part.step, index, 0)) for index in (0, 1)
            ]
            inputs = torch.cat([torch.randn(self.batch, 4, generator=g) for g in halves])
            loss = (self.model(inputs) - inputs.sum(dim=1, keepdim=True)).square().mean()
            loss.backward()
            return {"loss": float(loss.detach())}

    run(ToyTask(dropout=0.0), SETTINGS, tmp_path / "parts")
    run(Whole(dropout=0.0), replace(SETTINGS, accumulation=1), tmp_path / "whole")
    parts, whole = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_decay_reaches_matrices_that_are_used_and_nothing_else(tmp_path: Path) -> None:
    class Still(ToyTask):
        def accumulate(self, part: Part) -> dict[str, float]:
            for parameter in self.model.parameters():
                if parameter is not self.unused:
                    parameter.grad = torch.zeros_like(parameter)
            return {"loss": 0.0}

    task = Still()
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    run(task, replace(SETTINGS, weight_decay=0.5), tmp_path)
    for name, tensor in task.model.state_dict().items():
        decays = name in ("1.weight", "2.weight")
        assert torch.equal(tensor, before[name]) != decays


def test_gradients_are_cut_to_the_norm_unless_that_is_off(tmp_path: Path) -> None:
    norms = {}
    for limit in (0.0, 1e-3):
        task = ToyTask()
        run(task, replace(SETTINGS, max_grad_norm=limit), tmp_path / str(limit))
        norms[limit] = float(
            nn.utils.get_total_norm([p.grad for p in task.model.parameters() if p.grad is not None])
        )
    assert norms[0.0] > 1e-2
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3)


def test_bf16_trains_close_to_float32(tmp_path: Path, unbroken: Path) -> None:
    run(ToyTask(), replace(SETTINGS, precision="bf16"), tmp_path / "bf16")
    rounded, exact = log(tmp_path / "bf16"), log(unbroken)
    assert rounded != exact
    assert rounded[-2]["loss"] == pytest.approx(exact[-2]["loss"], rel=0.05)
    assert weights(tmp_path / "bf16")["1.weight"].dtype == torch.float32


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [0, 2, 3])
def test_an_interrupted_run_goes_on_as_if_it_had_never_stopped(
    tmp_path: Path, at: int, number: signal.Signals
) -> None:
    class Interrupted(ToyTask):
        def accumulate(self, part: Part) -> dict[str, float]:
            if part.step == at and part.index == 0:
                os.kill(os.getpid(), number)
            return super().accumulate(part)

    before = signal.getsignal(number)
    settings = replace(SETTINGS, log_every=1)
    run(ToyTask(), settings, tmp_path / "whole")
    task = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        run(task, settings, tmp_path / "broken")
    assert signal.getsignal(number) is before
    assert task.parts[-1] == (at, 1, 0), "the step under way is finished"
    rest = ToyTask(seed=99)
    run(rest, settings, tmp_path / "broken")
    assert rest.parts[0] == (at + 1, 0, 0)
    assert_same_run(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.parametrize("at", [1, 5, 6, 9])
def test_a_run_that_died_goes_on_from_its_last_checkpoint(
    tmp_path: Path, unbroken: Path, at: int
) -> None:
    class Dying(ToyTask):
        def accumulate(self, part: Part) -> dict[str, float]:
            if part.step == at:
                raise MemoryError
            return super().accumulate(part)

    folder = tmp_path / "dying"
    with pytest.raises(MemoryError):
        run(Dying(), SETTINGS, folder)
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # the machine went down while this was written
    task = ToyTask(seed=99 if at > 4 else 0)
    run(task, SETTINGS, folder)
    assert task.parts[0][0] == at // 4 * 4
    assert_same_run(folder, unbroken)


def test_a_finished_run_is_only_saved_again(unbroken: Path) -> None:
    before = log(unbroken)
    (unbroken / "model" / "weights.pt").unlink()
    task = ToyTask()
    run(task, SETTINGS, unbroken)
    assert task.parts == []
    assert weights(unbroken)
    assert log(unbroken) == before


def test_a_log_without_a_checkpoint_is_begun_anew(tmp_path: Path, unbroken: Path) -> None:
    (unbroken / "checkpoint.pt").unlink()
    before = log(unbroken)
    run(ToyTask(), SETTINGS, unbroken)
    assert log(unbroken) == before


@pytest.mark.parametrize(
    "change",
    [{"steps": 11}, {"seed": 1}, {"batch_size": 3}, {"accumulation": 1}, {"learning_rate": 0.1}],
)
def test_a_checkpoint_of_another_run_is_refused(unbroken: Path, change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    before = (unbroken / "checkpoint.pt").read_bytes()
    message = f"checkpoint.pt is of a run with {name} = {getattr(SETTINGS, name)}, not {value}; use"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        run(ToyTask(), replace(SETTINGS, **change), unbroken)
    assert (unbroken / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("kept", [0, 100, -100])
def test_a_damaged_checkpoint_is_refused_in_one_line(unbroken: Path, kept: int) -> None:
    path = unbroken / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        CheckpointError, match=r"checkpoint\.pt cannot be read .*delete it"
    ) as error:
        run(ToyTask(), SETTINGS, unbroken)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_checkpoint_is_refused(unbroken: Path) -> None:
    torch.save([1, 2], unbroken / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt cannot be read"):
        run(ToyTask(), SETTINGS, unbroken)


def test_a_checkpoint_of_another_model_is_refused(unbroken: Path) -> None:
    task = ToyTask()
    task.model[2] = nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt does not fit this model: "):
        run(task, SETTINGS, unbroken)


@pytest.mark.parametrize(
    ("gradient_only", "name"),
    [(False, "the loss became nan"), (True, "the gradient's norm became")],
)
def test_a_number_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, gradient_only: bool, name: str
) -> None:
    task = SpoiltTask(6, gradient_only=gradient_only)
    with pytest.raises(TrainingError, match=f"{name} .*in step 7; the last checkpoint .* is kept"):
        run(task, SETTINGS, tmp_path)
    assert all(torch.isfinite(parameter).all() for parameter in task.model.parameters())
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4
    assert not (tmp_path / "model").exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        if (tmp_path / "checkpoint.pt").exists():
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(CheckpointError, match=r"cannot be written .*No space left .* free some"):
        run(ToyTask(), SETTINGS, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4
    assert not list(tmp_path.glob(".checkpoint*"))


def test_a_run_may_live_in_a_thread(tmp_path: Path, unbroken: Path) -> None:
    folder = tmp_path / "thread"
    thread = threading.Thread(target=run, args=(ToyTask(), SETTINGS, folder))
    # The start weights were drawn in this thread; all else comes from the parts.
    thread.start()
    thread.join()
    assert_same_run(folder, unbroken)


def test_freezing_keeps_embeddings_and_low_layers() -> None:
    model = tiny_model()
    freeze(model, embeddings=True, layers=1)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name for name, _ in model.named_parameters()} - frozen
    assert frozen == {
        name
        for name, _ in model.named_parameters()
        if "bert.embeddings." in name or "layer.0." in name
    }
    assert len(frozen) == 5 + 16
    assert not model.lm.get_output_embeddings().weight.requires_grad, "the projection is tied"


@pytest.mark.parametrize(
    ("embeddings", "layers", "whole"),
    [(True, 2, True), (True, 1, False), (False, 2, False), (False, 0, False)],
)
def test_a_body_is_frozen_when_nothing_in_it_is_trained(
    embeddings: bool, layers: int, whole: bool
) -> None:
    model = tiny_model(cls_attention=True)
    settings = TrainerSettings(freeze_embeddings=embeddings, freeze_layers=layers)
    assert body_is_frozen(model, settings) == whole
    freeze(model, embeddings, layers)
    assert whole == (not any(p.requires_grad for p in model.lm.bert.parameters()))


def test_more_frozen_layers_than_there_are_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"freeze_layers is 3, but the model has fewer"):
        freeze(tiny_model(), embeddings=False, layers=3)
