"""Fine-tuning learns, and neither chunks, caches, parts, stops nor processes change what."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_finetune import (
    EVERY_LOSS,
    EXACT_TERMS,
    FREEZE,
    READING,
    frozen_config,
    tiny_config,
    write_rows,
    write_start,
)
from tiny_model import tiny_model, tiny_tokenizer
from torch import Tensor

from dupmae import finetune as module
from dupmae.checkpoint import load_model, save_model
from dupmae.encoder import Encoder
from dupmae.errors import CheckpointError, DataError, UsageError
from dupmae.finetune import FinetuneConfig, FinetuneTask, finetune
from dupmae.heads import HeadSettings
from dupmae.model import DupMAE
from dupmae.retrieval_loss import LossSettings
from dupmae.trainer import Part, freeze, part_seed


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a start model and rows."""
    folder = tmp_path_factory.mktemp("finetune")
    write_start(folder / "start")
    write_rows(folder / "rows.jsonl")
    return folder


def part(index: int = 0, of: int = 1, *, step: int = 3, bf16: bool = False) -> Part:
    seed = part_seed(0, step, index, 0)
    torch.manual_seed(seed)
    autocast = (lambda: torch.autocast("cpu", torch.bfloat16)) if bf16 else nullcontext
    return Part(step, index, of, 0, 1, torch.Generator().manual_seed(seed), autocast)


def gradients(task: FinetuneTask, *parts: Part) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the gradients of parts added up, and the losses of the last."""
    task.model.train()
    task.model.zero_grad(set_to_none=True)
    losses: dict[str, float] = {}
    for each in parts:
        losses = task.accumulate(each)
    found = {n: p.grad for n, p in task.model.named_parameters() if p.grad is not None}
    return {name: gradient.clone() for name, gradient in found.items()}, losses


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Compare against the largest gradient: some are 0 but for rounding."""
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    assert scale > 0.01
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-6 * scale, msg=name)


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


@pytest.mark.parametrize(
    ("bf16", "dropout"),
    [
        (False, 0.0),
        pytest.param(False, 0.2, marks=pytest.mark.slow),
        pytest.param(True, 0.0, marks=pytest.mark.slow),
        (True, 0.2),
    ],
)
def test_a_gradient_cache_changes_no_gradient(
    world: Path, tmp_path: Path, bf16: bool, dropout: float
) -> None:
    config = tiny_config(world, start={"dropout": dropout})
    plain, losses = gradients(FinetuneTask(config, tmp_path), part(bf16=bf16))
    cached_task = FinetuneTask(replace(config, gradient_cache=True), tmp_path)
    cached, cached_losses = gradients(cached_task, part(bf16=bf16))
    assert cached_losses == losses
    assert_same_gradients(cached, plain)


def test_reading_a_frozen_body_once_changes_no_gradient(world: Path, tmp_path: Path) -> None:
    once, losses = gradients(FinetuneTask(frozen_config(world), tmp_path), part())
    # The same body as a teacher of its own, and read with a graph for every chunk.
    config = replace(frozen_config(world, teacher="start"), trainer=tiny_config(world).trainer)
    task = FinetuneTask(config, tmp_path)
    freeze(task.model, True, 2)
    plain, plain_losses = gradients(task, part())
    assert losses == pytest.approx(plain_losses, rel=1e-4)
    heads = {name: once[name] for name in plain}
    assert_same_gradients(heads, plain)
    # The tied projection is an embedding: it has a gradient until the loop freezes it.
    assert once.keys() - plain.keys() == {"lm.bert.embeddings.word_embeddings.weight"}


def test_a_frozen_body_is_read_once_a_text_cached_or_not(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = frozen_config(world, loss=replace(EVERY_LOSS, late_scale=0.3))
    tasks = [FinetuneTask(replace(config, gradient_cache=c), tmp_path) for c in (False, True)]
    texts: list[int] = []
    hidden_states = DupMAE.hidden_states

    def counted(model: DupMAE, input_ids: Tensor, mask: Tensor) -> Tensor:
        texts.append(len(input_ids))
        return hidden_states(model, input_ids, mask)

    monkeypatch.setattr(DupMAE, "hidden_states", counted)
    found = []
    for task in tasks:
        texts.clear()
        found.append(gradients(task, part())[0])
        batch = task._source.draw(part(), 6)
        assert sum(texts) == len(batch.queries) + len(batch.documents)
    assert_same_gradients(found[1], found[0])


def test_late_interaction_changes_what_a_frozen_body_teaches(world: Path, tmp_path: Path) -> None:
    found = {}
    for scale in (0.0, 0.3):
        config = frozen_config(world, loss=replace(EVERY_LOSS, late_scale=scale))
        found[scale] = gradients(FinetuneTask(config, tmp_path), part())[1]
    changed = {name for name in found[0.0] if found[0.0][name] != found[0.3][name]}
    assert changed == {"loss", "teacher_sum"}


def test_chunks_change_no_gradient(world: Path, tmp_path: Path) -> None:
    config = tiny_config(world)
    whole, losses = gradients(FinetuneTask(replace(config, chunk_size=1000), tmp_path), part())
    for size in (1, 5):
        pieces, again = gradients(FinetuneTask(replace(config, chunk_size=size), tmp_path), part())
        assert again == pytest.approx(losses, rel=1e-4, abs=1e-6)
        assert_same_gradients(pieces, whole)


def test_accumulated_parts_add_up_to_their_mean(world: Path, tmp_path: Path) -> None:
    # Without sampled terms: these belong to a part's place in the run.
    task = FinetuneTask(tiny_config(world, data={"sampled_terms": 0}), tmp_path)
    together, _ = gradients(task, *(part(index, of=3) for index in range(3)))
    alone = [gradients(task, part(index))[0] for index in range(3)]
    mean = {name: torch.stack([found[name] for found in alone]).mean(dim=0) for name in together}
    assert_same_gradients(together, mean)


def test_every_parameter_gets_a_gradient(world: Path, tmp_path: Path) -> None:
    found, losses = gradients(FinetuneTask(tiny_config(world), tmp_path), part())
    without = {name for name, gradient in found.items() if not gradient.abs().sum() > 0}
    # A softmax over tokens does not feel what is added to every key alike.
    assert without <= {name for name in found if name.endswith("attention.self.key.bias")}
    assert losses["loss"] == pytest.approx(
        sum(value for name, value in losses.items() if name not in ("loss", "active_terms")),
        rel=1e-5,
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


def test_rows_without_scores_teach_nothing_where_scores_are_all(
    world: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "ba", "text": "be"}\n' * 4)
    config = tiny_config(world, loss=LossSettings(contrastive=0.0, given_kl=1.0))
    data = replace(config.data, files=(str(path),), held_out=0)
    found, losses = gradients(FinetuneTask(replace(config, data=data), tmp_path), part())
    assert losses["loss"] == 0
    assert all((gradient == 0).all() for gradient in found.values())


def test_given_negatives_take_part_in_the_contrast(world: Path, tmp_path: Path) -> None:
    losses = {}
    for negatives in (0, 2):
        config = replace(tiny_config(world), loss=LossSettings())
        config = replace(config, data=replace(config.data, negatives=negatives))
        losses[negatives] = gradients(FinetuneTask(config, tmp_path), part())[1]["loss"]
    assert losses[2] > losses[0]


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


def test_a_teacher_of_another_width_may_give_scores_but_no_vectors(
    world: Path, tmp_path: Path
) -> None:
    save_model(tiny_model(dense_dim=16), tiny_tokenizer(), tmp_path / "start", name="narrow")
    config = tiny_config(world)
    start = replace(config.start, model=str(tmp_path / "start"))
    with pytest.raises(UsageError, match=r"32 dimensions, heads\.dense_dim is 16"):
        FinetuneTask(replace(config, start=start), tmp_path)
    scores_only = FinetuneConfig(
        start, replace(config.data), loss=LossSettings(teacher_dense=1.0), trainer=config.trainer
    )
    _, losses = gradients(FinetuneTask(scores_only, tmp_path), part())
    assert losses["teacher_dense"] > 0
