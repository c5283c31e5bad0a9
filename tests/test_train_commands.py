"""`pretrain` and `finetune`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import one_line, run


@pytest.mark.slow
def test_pretrain_without_a_corpus_takes_the_demo_texts_and_says_so(
    here: Path, model: Path
) -> None:
    result = run(
        "pretrain", "--start", str(model), "--steps", "2",
        "--set", "corpus.max_length=24", "--set", "trainer.batch_size=4", "--set", "probe_texts=4",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "built-in demo corpus" in result.stderr
    assert (here / "runs/pretrain/model/model.safetensors").exists()
    log = [json.loads(line) for line in Path("runs/pretrain/log.jsonl").read_text().splitlines()]
    assert {"loss", "mlm", "cls", "bag", "sequences_per_s"} <= log[1].keys()


def test_finetune_takes_rows_and_a_start_model(here: Path, model: Path) -> None:
    rows = [
        {"query": f"ba {word}", "text": f"{word} be bi bo"} for word in ("ka", "ke", "ki", "ko")
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run(
        "finetune", "rows.jsonl", "--start", str(model), "--steps", "2",
        "--set", "data.held_out=1", "--set", "trainer.batch_size=2",
        "--set", "data.document_length=24", "--set", "data.query_length=24",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert run("index", "corpus.jsonl", "--model", "runs/finetune/model").exit_code == 1
    log = [json.loads(line) for line in Path("runs/finetune/log.jsonl").read_text().splitlines()]
    assert {"loss", "contrastive_sum"} <= log[1].keys()


def test_an_unknown_setting_names_the_nearest(here: Path, model: Path) -> None:
    one_line(run("pretrain", "--start", str(model), "--set", "trainer.step=3"), 2, "trainer.steps")
    one_line(run("finetune", "--set", "loss"), 2, "KEY=VALUE")


def test_a_missing_training_file_is_named(here: Path, model: Path) -> None:
    one_line(run("pretrain", "no.jsonl", "--start", str(model)), 1, "no.jsonl")
    lengths = ["--set", "data.document_length=24", "--set", "data.query_length=24"]
    one_line(run("finetune", "no.jsonl", "--start", str(model), *lengths), 1, "no.jsonl")
