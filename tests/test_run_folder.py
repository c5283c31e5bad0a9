"""A run's folder: its config is kept, and its log holds nothing that will come again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dupmae.config import load_config
from dupmae.errors import UsageError
from dupmae.run_folder import Means, RunLog, settle_config
from dupmae.trainer import TrainerSettings


@dataclass(frozen=True)
class Config:
    weight: float = 1.0
    name: str = "run"
    inner: TrainerSettings | None = None
    trainer: TrainerSettings = field(default_factory=TrainerSettings)


def begin(folder: Path, config: Config) -> None:
    """Leave the folder as a run that has made a checkpoint leaves it."""
    settle_config(config, folder)
    (folder / "checkpoint.pt").touch()


def saved(folder: Path) -> Config:
    return load_config(folder / "config.toml", Config, {})


def test_a_new_run_makes_its_folder_and_keeps_its_config(tmp_path: Path) -> None:
    config = Config(weight=0.5)
    settle_config(config, tmp_path / "runs" / "a")
    assert saved(tmp_path / "runs" / "a") == config


def test_without_a_checkpoint_the_config_may_change(tmp_path: Path) -> None:
    settle_config(Config(), tmp_path)
    settle_config(Config(weight=2.0), tmp_path)
    assert saved(tmp_path).weight == 2.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (Config(weight=2.0), r"was begun with weight = 1\.0, not 2\.0; set it back"),
        (Config(trainer=TrainerSettings(precision="bf16")), r"trainer\.precision = 'float32', not"),
        (Config(name="other"), r"name = 'run', not 'other'"),
        (Config(inner=TrainerSettings()), r"inner\.accumulation = None, not 1"),
    ],
)
def test_a_run_goes_on_with_its_own_settings_only(
    tmp_path: Path, changed: Config, message: str
) -> None:
    begin(tmp_path, Config())
    with pytest.raises(UsageError, match=message):
        settle_config(changed, tmp_path)
    assert saved(tmp_path) == Config()


def test_a_table_that_was_there_must_be_there_again(tmp_path: Path) -> None:
    begin(tmp_path, Config(inner=TrainerSettings()))
    with pytest.raises(UsageError, match=r"inner\.accumulation = 1, not None"):
        settle_config(Config(), tmp_path)


def test_what_does_not_alter_the_result_may_change(tmp_path: Path) -> None:
    begin(tmp_path, Config())
    trainer = TrainerSettings(checkpoint_every=7, probe_every=7, log_every=7, threads=7)
    changed = Config(name="other", trainer=replace(trainer, device="cpu"))
    settle_config(changed, tmp_path, free=["name"])
    assert saved(tmp_path) == changed


def test_the_log_keeps_six_digits_and_nothing_empty(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    log.append(3, {"loss": 1 / 3, "big": 1234567.0})
    log.append(4, {})
    lines = log.path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 3, "loss": 0.333333, "big": 1234570.0}]


def test_cutting_a_log_drops_later_steps_and_what_cannot_be_read(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    log.cut(3)
    assert not log.path.exists()
    for step in range(6):
        log.append(step, {"loss": float(step)})
    with log.path.open("a") as file:
        file.write('3\n{"loss": 1}\n{"step": 2, "lo')
    log.cut(3)
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == [0, 1, 2, 3]


def test_means_count_an_absent_measure_as_zero_and_begin_anew() -> None:
    means = Means()
    means.add({"a": 1.0})
    means.add({"a": 2.0, "b": 4.0})
    assert means.take() == ({"a": 1.5, "b": 2.0}, 2)
    means.add({"a": 5.0})
    assert means.take() == ({"a": 5.0}, 1)
