"""A fine-tuning run in miniature: the two-layer model, made-up rows, every loss on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tiny_model import WORDS, tiny_model, tiny_tokenizer

from dupmae.batch import DataSettings
from dupmae.checkpoint import save_model
from dupmae.finetune import FinetuneConfig, StartSettings
from dupmae.heads import HeadSettings
from dupmae.retrieval_loss import LossSettings
from dupmae.trainer import TrainerSettings

EVERY_LOSS = LossSettings(
    contrastive_parts=0.5,
    given_kl=0.1,
    given_margin_mse=0.01,
    teacher_sum=0.1,
    teacher_dense=0.1,
    teacher_sparse=0.1,
    alignment=1.0,
    self_distillation=0.2,
    flops_query=0.01,
    flops_document=0.01,
)


EXACT_TERMS = HeadSettings(dense_dim=32, expansion=0.0, max_document_length=24, max_query_length=16)
READING = replace(EXACT_TERMS, cls_attention=True, frequency_k1=0.9, corpus_idf=1.0)
FREEZE = {"freeze_embeddings": True, "freeze_layers": 2}
"""All of the start model's body."""


def write_rows(path: Path, count: int = 24) -> Path:
    """Write rows whose query is two words of its text; every third has neither negatives."""
    chance = np.random.default_rng(5)
    with path.open("w") as file:
        for number in range(count):
            words = chance.choice(WORDS, 8).tolist()
            row: dict[str, Any] = {"query": " ".join(words[2:4]), "text": " ".join(words)}
            if number % 3:
                row["negatives"] = [" ".join(chance.choice(WORDS, 6)) for _ in range(3)]
                row["scores"] = [1.0, *chance.random(3).round(3).tolist()]
            file.write(json.dumps(row) + "\n")
    return path


def write_start(folder: Path) -> Path:
    """Save the model that runs start from, whose body is the teacher as well."""
    save_model(tiny_model(dense_dim=32), tiny_tokenizer(), folder, name="start")
    return folder


def tiny_config(
    folder: Path,
    *,
    trainer: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    start: dict[str, Any] | None = None,
    loss: LossSettings | None = None,
    **changes: Any,
) -> FinetuneConfig:
    """Return settings for a run on the rows and the start model that lie in `folder`."""
    config = FinetuneConfig(
        start=StartSettings(
            **{
                "model": str(folder / "start"), "teacher": str(folder / "start"), "dropout": 0.0,
            } | (start or {}),
        ),
        data=DataSettings(
            (str(folder / "rows.jsonl"),),
            **{
                "negatives": 2, "held_out": 6, "query_length": 16, "document_length": 24,
                "sampled_terms": 10,
            } | (data or {}),
        ),
        loss=loss or EVERY_LOSS,
        trainer=TrainerSettings(
            **{
                "steps": 6, "batch_size": 6, "learning_rate": 1e-3, "checkpoint_every": 2,
                "probe_every": 3, "log_every": 1, "device": "cpu",
            } | (trainer or {}),
        ),
        chunk_size=4,
    )  # fmt: skip
    return replace(config, **changes)


def frozen_config(
    folder: Path, *, trainer: dict[str, Any] | None = None, teacher: str = "", **changes: Any
) -> FinetuneConfig:
    """Return settings under which the body stays and is, without `teacher`, its own teacher."""
    start = {"teacher": teacher and str(folder / teacher)}
    trainer = FREEZE | (trainer or {})
    return tiny_config(folder, trainer=trainer, start=start, **({"heads": READING} | changes))
