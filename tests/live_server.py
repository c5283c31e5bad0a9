"""`python cli.py serve` as a process of its own, on a tiny model."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tiny_model import tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model
from dupmae.encoder import Encoder
from dupmae.engine import Chunk, build_index
from dupmae.types import Document

DOCUMENTS = [
    Document("sea", "be bi bo ba", "da ba", {"year": 2019}),
    Document("sky", "ka ke ki ko", "", {"year": 2020}),
    Document("sun", "ra re ri ro ba be", "", {"year": 2021}),
]


def tiny_index(
    folder: Path, documents: Sequence[Document] = DOCUMENTS, chunk: Chunk | None = None
) -> tuple[Path, Path]:
    """Make a model and an index; return their folders."""
    model = folder / "tiny"
    save_model(tiny_model(expansion=0.0), tiny_tokenizer(), model, name="tiny")
    build_index(documents, Encoder.load(model), folder / "demo", chunk=chunk)
    return model, folder / "demo"


@contextmanager
def running(model: Path, index: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a server until the block ends; gives its URL and its process."""
    command = [
        *(sys.executable, "-m", "dupmae", "serve", "--index", str(index), "--model", str(model)),
        *("--port", "0", *options),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = process.stderr.readline()
            found = re.fullmatch(r"serving demo at (http://127\.0\.0\.1:\d+)\n", said)
            assert found, said + process.stderr.read()
            yield found[1], process
        finally:
            process.kill()
