from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import VOCABULARY, WORDS, tiny_model, tiny_tokenizer

from dupmae.checkpoint import load_model, save_model
from dupmae.config import load_config
from dupmae.errors import DataError, UsageError
from dupmae.model import DupMAE
from dupmae.packing import open_corpus
from dupmae.pretrain import PretrainConfig, PretrainTask, pretrain
from dupmae.trainer import Part

LENGTH = 16
STEPS = 6


def make_texts(count: int = 24, words: int = LENGTH - 2, seed: int = 0) -> list[str]:
    """Return texts of whole words, each of which fills a block."""
    chance = np.random.default_rng(seed)
    return [" ".join(chance.choice(WORDS, words)) for _ in range(count)]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "tiny"
    save_model(tiny_model(), tiny_tokenizer(), folder, name="tiny")
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in a fixed order, so that runs can be compared bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(start: Path, **overrides: Any) -> PretrainConfig:
    small = {
        "start.model": str(start),
        "start.dropout": 0.0,
        "corpus.max_length": LENGTH,
        "trainer.steps": STEPS,
        "trainer.batch_size": 4,
        "trainer.learning_rate": 1e-3,
        "trainer.log_every": 1,
        "trainer.device": "cpu",
        "probe_texts": 0,
    }
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(None, PretrainConfig, small | dotted)


def task(settings: PretrainConfig, folder: Path, texts: list[str]) -> PretrainTask:
    loaded = load_model(settings.start.model, heads=settings.heads)
    blocks = open_corpus(settings.corpus, loaded.tokenizer, folder, texts=texts)
    return PretrainTask(settings, loaded.model, loaded.tokenizer, blocks)


def part(step: int = 0, index: int = 0, of: int = 1, rank: int = 0, world_size: int = 1) -> Part:
    generator = torch.Generator().manual_seed(1)
    return Part(step, index, of, rank, world_size, generator, nullcontext)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder / "model").model.named_parameters())


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def gradients(made: PretrainTask) -> dict[str, torch.Tensor]:
    named = made.model.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


@pytest.mark.parametrize("variant", ["code", pytest.param("paper", marks=pytest.mark.slow)])
def test_every_loss_falls_on_eight_texts(start: Path, tmp_path: Path, variant: str) -> None:
    settings = config(
        start,
        objective__variant=variant,
        trainer__steps=60,
        trainer__batch_size=8,
        trainer__learning_rate=3e-3,
    )
    pretrain(settings, tmp_path, texts=make_texts(8))
    lines = log(tmp_path)
    for name in ("loss", "mlm", "cls", "bag"):
        first = np.mean([line[name] for line in lines[:5]])
        last = np.mean([line[name] for line in lines[-5:]])
        assert last < 0.85 * first, name


def test_a_finished_run_is_a_model_folder_and_a_config(start: Path, tmp_path: Path) -> None:
    settings = config(start, trainer__steps=1, name="mine")
    pretrain(settings, tmp_path, texts=make_texts())
    loaded = load_model(tmp_path / "model")
    assert (loaded.name, loaded.missing) == ("mine", ())
    assert loaded.model.heads == tiny_model().heads
    assert load_config(tmp_path / "config.toml", PretrainConfig, {}) == settings


def test_retrieval_heads_are_left_alone_and_the_encoder_is_not(start: Path, tmp_path: Path) -> None:
    pretrain(config(start, trainer__weight_decay=0.5), tmp_path, texts=make_texts())
    before = dict(load_model(start).model.named_parameters())
    for name, after in weights(tmp_path).items():
        assert torch.equal(before[name], after) == (not name.startswith("lm.")), name


def test_two_accumulated_parts_equal_one_large_batch(start: Path, tmp_path: Path) -> None:
    texts = make_texts()
    large = task(config(start, trainer__batch_size=8), tmp_path / "a", texts)
    small = task(config(start, trainer__batch_size=4), tmp_path / "b", texts)
    whole = large.accumulate(part(step=2))
    halves = [small.accumulate(part(step=2, index=index, of=2)) for index in (0, 1)]
    for name, value in whole.items():
        assert (halves[0][name] + halves[1][name]) / 2 == pytest.approx(value, rel=1e-5)
    expected = gradients(large)
    for name, gradient in gradients(small).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decoder", ["enhanced", "none"])
def test_a_batch_does_not_depend_on_how_the_step_is_cut(
    start: Path, tmp_path: Path, decoder: str
) -> None:
    texts = [text[: 20 + 3 * number] for number, text in enumerate(make_texts())]

    def cut(size: int) -> PretrainTask:
        settings = config(start, trainer__batch_size=size, objective__decoder=decoder)
        return task(settings, tmp_path, texts)

    whole = cut(8).batch(part(step=4))
    for number in range(4):
        piece = cut(2).batch(part(step=4, index=number // 2, of=2, rank=number % 2, world_size=2))
        rows = slice(2 * number, 2 * number + 2)
        length = piece.input_ids_BL.shape[1]
        assert torch.equal(piece.input_ids_BL, whole.input_ids_BL[rows, :length])
        assert torch.equal(piece.guessed_BL, whole.guessed_BL[rows, :length])
        if piece.visible_BLL is not None and whole.visible_BLL is not None:
            assert torch.equal(piece.visible_BLL, whole.visible_BLL[rows, :length, :length])


def test_every_epoch_shows_each_text_once_in_another_order(start: Path, tmp_path: Path) -> None:
    texts = make_texts(10)
    made = task(config(start, trainer__batch_size=4), tmp_path, texts)
    rows = torch.cat([made.batch(part(step=step)).original_ids_BL for step in range(5)])
    shown = [tuple(row.tolist()) for row in rows]
    assert len(set(shown[:10])) == 10
    assert set(shown[10:]) == set(shown[:10])
    assert shown[10:] != shown[:10]


class StopError(Exception):
    """Stands for a machine that goes down."""


def crash_after(calls: int, method: Callable[..., Any]) -> Callable[..., Any]:
    made = 0

    def crashing(*args: Any) -> Any:
        nonlocal made
        made += 1
        if made > calls:
            raise StopError
        return method(*args)

    return crashing


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(
        start,
        start__dropout=0.1,
        objective__vocabulary_sample=20,
        trainer__accumulation=2,
        trainer__checkpoint_every=2,
        probe_texts=2,
    )
    texts = make_texts()
    pretrain(settings, tmp_path / "unbroken", texts=texts)
    with monkeypatch.context() as patch:
        crashing = crash_after(2 * 3, PretrainTask.accumulate)  # in step 4 of 6
        patch.setattr(PretrainTask, "accumulate", crashing)
        with pytest.raises(StopError):
            pretrain(settings, tmp_path / "broken", texts=texts)
    pretrain(settings, tmp_path / "broken", texts=texts)
    unbroken, broken = weights(tmp_path / "unbroken"), weights(tmp_path / "broken")
    for name, expected in unbroken.items():
        assert torch.equal(broken[name], expected), name
    states = [
        torch.load(tmp_path / run / "checkpoint.pt", weights_only=True)["model"]
        for run in ("unbroken", "broken")
    ]
    assert states[0].keys() == states[1].keys()
    assert any(name.startswith("decoder.") for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    timeless = [
        [{k: v for k, v in line.items() if k != "sequences_per_s"} for line in log(tmp_path / run)]
        for run in ("unbroken", "broken")
    ]
    assert timeless[0] == timeless[1]


def test_a_run_does_not_go_on_with_other_settings_or_texts(start: Path, tmp_path: Path) -> None:
    settings, texts = config(start), make_texts()
    pretrain(settings, tmp_path, texts=texts)
    with pytest.raises(DataError, match="the corpus is not the one that the run"):
        pretrain(settings, tmp_path, texts=texts[:-1])
    changed = replace(settings, masking=replace(settings.masking, encoder_rate=0.2))
    with pytest.raises(UsageError, match=r"begun with masking\.encoder_rate = 0\.3, not 0\.2"):
        pretrain(changed, tmp_path, texts=texts)


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(start: Path, tmp_path: Path) -> None:
    settings, texts = config(start, trainer__steps=3), make_texts()
    alone = replace(settings, trainer=replace(settings.trainer, batch_size=8))
    pretrain(alone, tmp_path / "one", texts=texts)

    (tmp_path / "texts.txt").write_text("\n\n".join(texts))
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from dupmae.config import load_config\n"
        "from dupmae.pretrain import PretrainConfig, pretrain\n"
        "torch.set_num_threads(1)\n"
        "overrides = {'corpus.files': [sys.argv[2]], 'trainer.batch_size': 4}\n"
        "config = load_config(Path(sys.argv[1]), PretrainConfig, overrides)\n"
        "pretrain(config, Path(sys.argv[3]))\n"
    )
    arguments = [tmp_path / "one" / "config.toml", tmp_path / "texts.txt", tmp_path / "two"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*command, str(script), *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for one, two in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    expected = weights(tmp_path / "one")
    for name, weight in weights(tmp_path / "two").items():
        # A key's bias has no gradient but rounding, which Adam blows up to full steps.
        if not name.endswith("key.bias"):
            assert (weight - expected[name]).abs().mean() < 2e-5, name


def test_bf16_trains_close_to_float32(start: Path, tmp_path: Path) -> None:
    texts = make_texts()
    for precision in ("float32", "bf16"):
        settings = config(start, trainer__precision=precision)
        pretrain(settings, tmp_path / precision, texts=texts)
    pairs = zip(log(tmp_path / "float32"), log(tmp_path / "bf16"), strict=True)
    for exact, rounded in pairs:
        assert rounded["loss"] == pytest.approx(exact["loss"], rel=0.02)
        assert rounded["loss"] != exact["loss"]


def test_retromae_logs_no_bag_of_words_loss(start: Path, tmp_path: Path) -> None:
    pretrain(config(start, objective__bow_weight=0.0), tmp_path, texts=make_texts())
    for line in log(tmp_path):
        assert "bag" not in line
        assert line["loss"] == pytest.approx(line["mlm"] + line["cls"], rel=1e-5)


@pytest.mark.parametrize("decoder", ["none", "bow"])
def test_ablations_train_without_the_decoder(start: Path, tmp_path: Path, decoder: str) -> None:
    pretrain(config(start, objective__decoder=decoder), tmp_path, texts=make_texts())
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"]
    assert not any(name.startswith("decoder.") for name in state)
    assert ("cls" in log(tmp_path)[-1]) == (decoder == "bow")


def test_the_probe_asks_for_held_out_texts_only(start: Path, tmp_path: Path) -> None:
    texts = make_texts(40)
    settings = config(start, probe_texts=3, trainer__batch_size=37)
    made = task(settings, tmp_path, texts)
    measures = made.probe()
    assert set(measures) == {"probe_sum", "probe_dense", "probe_sparse"}
    trained = made.batch(part()).original_ids_BL[:, 1:-1]
    decoded = set(tiny_tokenizer().batch_decode(trained))
    assert len(decoded) == 37
    asked = {f"{beginning} {rest}" for beginning, rest in made._probe_pairs}
    assert asked == set(texts) - decoded


def test_a_tenth_of_the_texts_is_held_out_at_most(start: Path, tmp_path: Path) -> None:
    made = task(config(start, probe_texts=200), tmp_path, make_texts(9))
    assert made.probe() == {}
    assert len(made._training) == 9


def test_a_new_model_has_the_asked_size_and_the_named_tokenizer(
    start: Path, tmp_path: Path
) -> None:
    settings = config(
        start,
        start__layers=3,
        start__hidden=24,
        start__attention_heads=2,
        start__max_positions=20,
        trainer__steps=1,
    )
    pretrain(settings, tmp_path, texts=make_texts())
    made: DupMAE = load_model(tmp_path / "model").model
    bert = made.lm.config
    sizes = (bert.num_hidden_layers, bert.hidden_size, bert.intermediate_size, bert.vocab_size)
    assert sizes == (3, 24, 96, len(VOCABULARY))
    assert (made.heads.dense_dim, made.heads.max_document_length) == (24, 20)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"corpus__max_length": 65}, r"max_length is 65, but the start model reads 64 tokens"),
        ({"start__hidden": 10, "start__attention_heads": 3}, r"start\.hidden must be a multiple"),
        ({"start__dropout": 1.0}, r"start\.dropout must lie in \[0, 1\), found 1\.0"),
        ({"probe_texts": -1}, r"probe_texts must not be negative, found -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    start: Path, tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pretrain(config(start, **overrides), tmp_path, texts=make_texts())
