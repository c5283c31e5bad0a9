"""Fine-tuning runs learn, and go on after a stop as if there had been none."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_finetune import (
    EXACT_TERMS,
    FREEZE,
    READING,
    frozen_config,
    tiny_config,
    write_rows,
    write_start,
)
from torch import Tensor

from dupmae import finetune as module
from dupmae.checkpoint import load_model
from dupmae.encoder import Encoder
from dupmae.errors import CheckpointError, DataError, UsageError
from dupmae.finetune import FinetuneTask, finetune
from dupmae.heads import HeadSettings
from dupmae.retrieval_loss import LossSettings
from dupmae.trainer import Part


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a start model and rows."""
    folder = tmp_path_factory.mktemp("finetune")
    write_start(folder / "start")
    write_rows(folder / "rows.jsonl")
    return folder


def trained(folder: Path) -> dict[str, Tensor]:
    return {
        name: tensor
        for file in ("model.safetensors", "heads.safetensors")
        for name, tensor in load_file(folder / "model" / file).items()
    }


def log(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "per_s" not in k} for line in lines]


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs die in a step."""
    accumulate = FinetuneTask.accumulate

    def dies(task: FinetuneTask, part: Part) -> dict[str, float]:
        if part.step == step:
            raise MemoryError
        return accumulate(task, part)

    monkeypatch.setattr(FinetuneTask, "accumulate", dies)


def test_the_loss_falls_on_eight_pairs(world: Path, tmp_path: Path) -> None:
    eight = write_rows(tmp_path / "eight.jsonl", 8)
    config = tiny_config(
        world,
        start={"dropout": 0.0, "teacher": ""},
        trainer={"steps": 20, "batch_size": 8, "learning_rate": 3e-3, "probe_every": 0},
        data={"held_out": 0, "block": 8, "negatives": 0, "sampled_terms": 0},
        loss=LossSettings(contrastive_parts=0.5),
    )
    finetune(replace(config, data=replace(config.data, files=(str(eight),))), tmp_path)
    losses = [line["loss"] for line in log(tmp_path)]
    assert losses[-1] < 0.2 * losses[0]
    assert all(
        log(tmp_path)[-1][f"contrastive_{name}"] < log(tmp_path)[0][f"contrastive_{name}"]
        for name in ("sum", "dense", "sparse")
    )


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(world, start={"dropout": 0.1, "fit_heads": True, "fit_texts": 20})
    finetune(config, tmp_path / "whole")
    stop_at(5, monkeypatch)
    with pytest.raises(MemoryError):
        finetune(config, tmp_path / "broken")
    assert not (tmp_path / "broken" / "model").exists()
    monkeypatch.undo()
    finetune(config, tmp_path / "broken")
    torch.testing.assert_close(
        trained(tmp_path / "broken"), trained(tmp_path / "whole"), rtol=0, atol=0
    )
    assert log(tmp_path / "broken") == log(tmp_path / "whole")


def test_a_frozen_body_stays_and_its_run_resumes_bit_for_bit(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = LossSettings(teacher_sum=1.0, late_scale=0.3, alignment=1.0)
    config = frozen_config(world, loss=loss, data={"neighbours": True})
    config = replace(config, start=replace(config.start, fit_heads=True, fit_texts=20))
    finetune(config, tmp_path / "whole")
    before = dict(load_model(world / "start").model.named_parameters())
    after = dict(load_model(tmp_path / "whole" / "model").model.named_parameters())
    body = {name for name in before if name.startswith("lm.bert.")}
    same = {name for name in before if torch.equal(after[name], before[name])}
    assert same == body
    attention = {name for name in after if name.startswith("cls_attention.")}
    fresh = load_model(world / "start", heads=READING).model
    assert not any(torch.equal(after[n], fresh.get_parameter(n)) for n in attention)

    stop_at(5, monkeypatch)
    with pytest.raises(MemoryError):
        finetune(config, tmp_path / "broken")
    monkeypatch.undo()
    finetune(config, tmp_path / "broken")
    torch.testing.assert_close(
        trained(tmp_path / "broken"), trained(tmp_path / "whole"), rtol=0, atol=0
    )
    assert log(tmp_path / "broken") == log(tmp_path / "whole")


def test_a_run_writes_a_model_that_encodes(world: Path, tmp_path: Path) -> None:
    finetune(tiny_config(world, heads=EXACT_TERMS, name="mine"), tmp_path)
    encoder = Encoder.load(tmp_path / "model")
    assert (encoder.name, encoder.heads) == ("mine", EXACT_TERMS)
    assert len(encoder.encode_queries(["ba be"]).sparse.terms) == 2
    assert 'base_model: "start"' in (tmp_path / "model" / "README.md").read_text()
    probes = [line for line in log(tmp_path) if "probe_sum" in line]
    assert [line["step"] for line in probes] == [0, 3, 6]


def test_frozen_layers_and_embeddings_stay(world: Path, tmp_path: Path) -> None:
    trainer = {"freeze_embeddings": True, "freeze_layers": 1, "steps": 2}
    config = tiny_config(world, trainer=trainer)
    finetune(config, tmp_path)
    before = dict(load_model(world / "start").model.named_parameters())
    after = dict(load_model(tmp_path / "model").model.named_parameters())
    same = {name for name in after if torch.equal(after[name], before[name])}
    assert same == {name for name in after if ".embeddings." in name or ".layer.0." in name}


def test_bf16_comes_close_to_float32(world: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bf16"):
        trainer = {"precision": precision, "steps": 2}
        finetune(tiny_config(world, trainer=trainer), tmp_path / precision)
    exact, rounded = log(tmp_path / "float32"), log(tmp_path / "bf16")
    assert rounded[1]["loss"] != exact[1]["loss"]
    assert rounded[1]["loss"] == pytest.approx(exact[1]["loss"], rel=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in trained(tmp_path / "bf16").values())


@pytest.mark.parametrize("loss", ["given_kl", "given_margin_mse"])
def test_a_step_moves_the_margin_towards_the_given_scores(
    world: Path, tmp_path: Path, loss: str
) -> None:
    config = tiny_config(
        world,
        start={"dropout": 0.0, "teacher": ""},
        trainer={"steps": 1, "batch_size": 1, "learning_rate": 1e-4, "probe_every": 0},
        data={"held_out": 0, "negatives": 1},
        loss=LossSettings(contrastive=0.0, temperature=100.0, **{loss: 1.0}),
        heads=EXACT_TERMS,
    )
    row: dict[str, Any] = {"query": "ba", "text": "ba bi bo", "negatives": ["ba de"]}
    margins = {}
    for own in (-100.0, 100.0):
        path = tmp_path / f"{own}.jsonl"
        path.write_text(json.dumps(row | {"scores": [own, 0.0]}))
        finetune(
            replace(config, data=replace(config.data, files=(str(path),))), tmp_path / str(own)
        )
        margins[own] = margin(tmp_path / str(own) / "model", row)
    before = margin(world / "start", row)
    assert margins[-100.0] < before - 0.001
    assert margins[100.0] > before + 0.001


def margin(folder: Path, row: dict[str, Any]) -> float:
    """Return how far the text's score lies above the negative's."""
    encoder = Encoder.load(folder, settings=asdict(EXACT_TERMS))
    query = encoder.encode_queries([row["query"]])
    texts = encoder.encode_documents([row["text"], *row["negatives"]])
    scores = []
    for dense, (terms, weights) in zip(texts.dense, texts.sparse, strict=True):
        weight = dict(zip(terms.tolist(), weights.tolist(), strict=True))
        shared = (weight.get(t, 0.0) * w for t, w in zip(*query.sparse.row(0), strict=True))
        scores.append(float(query.dense[0] @ dense) + sum(shared))
    return scores[0] - scores[1]


def test_a_checkpoint_keeps_fitted_heads_from_being_fitted_again(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, trainer = {"fit_heads": True, "fit_texts": 20}, {"steps": 2}
    config = tiny_config(world, start=start, trainer=trainer)
    fits: list[str] = []
    for name in ("fit_mlm_head", "fit_cls_projection", "set_query_weights"):
        monkeypatch.setattr(module, name, lambda *_, name=name: fits.append(name))
    finetune(config, tmp_path)
    assert fits == ["fit_mlm_head", "fit_cls_projection", "set_query_weights"]
    finetune(config, tmp_path)
    assert len(fits) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": LossSettings(contrastive=0.0)}, "every loss weight is 0; set one"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"loss": LossSettings(late_scale=1.0)}, "late_scale is a part of teacher_sum's scores"),
        ({"start": {"dropout": 1.0}}, r"start.dropout must lie in \[0, 1\), found 1.0"),
        ({"start": {"fit_texts": 0}}, "start.fit_texts must be at least 1"),
        ({"data": {"negatives": 0}}, "given_margin_mse need data.negatives above 0"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    world: Path, change: dict[str, Any], message: str
) -> None:
    config = tiny_config(world)
    with pytest.raises(UsageError, match=message):
        replace(
            config,
            **{
                name: replace(getattr(config, name), **value) if isinstance(value, dict) else value
                for name, value in change.items()
            },
        )


def test_settings_that_the_model_cannot_follow_are_named(world: Path, tmp_path: Path) -> None:
    config = tiny_config(world, data={"document_length": 65})
    with pytest.raises(
        UsageError, match="must not exceed the start model's 64 positions, found 65"
    ):
        finetune(config, tmp_path / "a")
    heads = HeadSettings(dense_dim=16, max_document_length=24, max_query_length=16)
    config = tiny_config(world, trainer={"freeze_layers": 3})
    with pytest.raises(UsageError, match=r"trainer\.freeze_layers is 3"):
        finetune(config, tmp_path / "b")
    with pytest.raises(CheckpointError, match="cls_projection"):
        finetune(tiny_config(world, heads=heads), tmp_path / "c")


@pytest.mark.parametrize(
    ("loss", "trainer"),
    [
        (LossSettings(alignment=1.0), {}),
        (LossSettings(teacher_dense=1.0), {"freeze_layers": 2}),
        (LossSettings(teacher_sum=1.0), FREEZE | {"freeze_layers": 1}),
        (LossSettings(teacher_sum=1.0, late_scale=1.0), {"freeze_embeddings": True}),
    ],
)
def test_a_body_in_training_is_no_teacher(
    world: Path, tmp_path: Path, loss: LossSettings, trainer: dict[str, Any]
) -> None:
    config = tiny_config(world, start={"teacher": ""}, loss=loss, trainer=trainer)
    with pytest.raises(UsageError, match=r"need start\.teacher, or, .* a frozen body"):
        FinetuneTask(config, tmp_path)


def test_a_run_does_not_go_on_with_other_settings(world: Path, tmp_path: Path) -> None:
    config = tiny_config(world, trainer={"steps": 2})
    finetune(config, tmp_path)
    before = (tmp_path / "config.toml").read_text()
    message = re.escape("was begun with loss.temperature = 0.05, not 0.1; set it back")
    with pytest.raises(UsageError, match=message):
        finetune(replace(config, loss=replace(config.loss, temperature=0.1)), tmp_path)
    assert (tmp_path / "config.toml").read_text() == before
    finetune(replace(config, chunk_size=3, gradient_cache=True), tmp_path)


def test_a_bad_row_stops_the_run_with_its_line(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "ba", "text": "be"}\n{"query": "ba"}\n')
    config = tiny_config(world, loss=LossSettings())
    data = replace(config.data, files=(str(path),), held_out=0)
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2: expected a string \"text\""):
        finetune(replace(config, data=data), tmp_path / "run")
