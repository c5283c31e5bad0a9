"""Neither chunks, caches, parts nor a frozen body change what fine-tuning learns of a batch."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_finetune import EVERY_LOSS, frozen_config, tiny_config, write_rows, write_start
from tiny_model import tiny_model, tiny_tokenizer
from torch import Tensor

from dupmae.checkpoint import save_model
from dupmae.errors import UsageError
from dupmae.finetune import FinetuneConfig, FinetuneTask
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
