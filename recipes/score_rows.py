"""Add a cross-encoder's scores to mined rows, for distillation.

    python recipes/score_rows.py mined.jsonl scored.jsonl --teacher TEACHER

The teacher is a folder or a name on the Hugging Face hub: any sequence classifier that gives a
pair of texts one logit. Each row gets "scores": of its text, then of each negative. Several
machines can each make a part (`--part 1 8` … `--part 8 8`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dupmae.data import RowFile
from dupmae.errors import CheckpointError, DupMAEError, UsageError
from dupmae.files import replacing
from dupmae.processes import resolve_device

ROWS_AT_ONCE = 16
"""Rows of a forward pass; with 15 negatives each, 256 pairs."""


class Teacher:
    """A cross-encoder: one logit for a query and a text, read together."""

    def __init__(self, name: str, max_length: int, device: torch.device) -> None:
        try:
            self._model = AutoModelForSequenceClassification.from_pretrained(name)
            self._tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"no cross-encoder can be loaded from {name}: {error}") from None
        if self._model.config.num_labels != 1:
            raise UsageError(f"{name} has {self._model.config.num_labels} labels, expected one")
        positions = getattr(self._model.config, "max_position_embeddings", max_length)
        if max_length > positions:
            raise UsageError(f"{name} reads {positions} tokens, not --length {max_length}")
        self._model.eval().to(device)
        self._max_length = max_length

    @torch.inference_mode()
    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the logits of pairs (query, text); of a long pair the longer's end is cut."""
        inputs = self._tokenizer(
            [query for query, _ in pairs],
            [text for _, text in pairs],
            truncation=True,
            max_length=self._max_length,
            padding=True,
            return_tensors="pt",
        ).to(self._model.device)
        logits: list[float] = self._model(**inputs).logits.squeeze(1).tolist()
        return logits


def scored_rows(file: RowFile, places: Sequence[int], teacher: Teacher) -> Iterator[dict[str, Any]]:
    """Yield the rows at these places with the teacher's scores."""
    remaining = iter(tqdm(places, unit="row", disable=None))
    while chunk := [file[place] for place in islice(remaining, ROWS_AT_ONCE)]:
        pairs = [(row.query, text) for row in chunk for text in (row.text, *row.negatives)]
        scores = iter(teacher.score(pairs))
        for row in chunk:
            own = [round(score, 4) for score in islice(scores, 1 + len(row.negatives))]
            yield {
                "query": row.query,
                "text": row.text,
                "negatives": list(row.negatives),
                "scores": own,
            }


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--teacher", required=True, help="A cross-encoder's folder or name on the hub.")
@click.option("--length", default=200, show_default=True, help="Tokens read of a pair.")
@click.option(
    "--part", nargs=2, type=click.IntRange(1), default=(1, 1), help="k n: the k-th of n parts."
)
def main(*, source: Path, output: Path, teacher: str, length: int, part: tuple[int, int]) -> None:
    """Write the rows of SOURCE with scores to OUTPUT, a JSON-lines file."""
    which, parts = part
    if which > parts:
        raise UsageError(f"there are {parts} parts, so no part {which}")
    file = RowFile(source, output.parent)
    rows = scored_rows(
        file,
        range(which - 1, len(file), parts),
        Teacher(teacher, length, resolve_device("auto")),
    )
    with replacing(output) as sink:
        for row in rows:
            sink.write(json.dumps(row).encode() + b"\n")


if __name__ == "__main__":
    try:
        main()
    except DupMAEError as error:
        sys.exit(f"Error: {error}")
