"""How fast the shipped model encodes, beside torch, sentence-transformers and a plain loop.

    OMP_NUM_THREADS=1 python benchmarks/encoders.py --out benchmarks/encoders.json

Each round asks all of them in turn, on one thread, and counts processor time: a machine that is
busy with other programs slows them alike. Ratios of medians are what can be compared.

The plain loop is what a reader of the paper would write: padded batches of 32, the logits of the
whole vocabulary for every token, their maximum. sentence-transformers has a model for dense and one
for sparse vectors, so texts are read twice, here by the same weights
(`dupmae.integrations.sentence_transformers`), in torch, which is what runs such models.

`--bfloat16` adds torch in that precision, for processors that have it.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import click
import onnxruntime
import torch

from dupmae.checkpoint import LoadedModel, load_model
from dupmae.encoder import Encoder
from dupmae.eval import demo_documents
from dupmae.folder import shipped_model
from dupmae.hardware import describe_cpu
from dupmae.integrations.sentence_transformers import dense_view, sparse_view
from dupmae.torch_encoder import TorchEncoder

DOCUMENT, QUERY = 200, 12
"""Tokens of a text, [CLS] and [SEP] included."""
PLAIN_BATCH = 32


def texts(encoder: Encoder, tokens: int, count: int) -> list[str]:
    """Return texts of exactly so many tokens, cut from the demo corpus."""
    words = " ".join(document.text for document in demo_documents()).split()
    found: list[str] = []
    start = 0
    while len(found) < count:
        size = tokens
        while len(encoder.tokenise_documents([" ".join(words[start : start + size])])[0]) > tokens:
            size -= 1
        found.append(" ".join(words[start : start + size]))
        start += size
    return found


@torch.inference_mode()
def plain(loaded: LoadedModel, some: Sequence[str]) -> None:
    """Encode texts with neither the order nor the shortcuts of the encoders here."""
    model = loaded.model
    for start in range(0, len(some), PLAIN_BATCH):
        batch = loaded.tokenizer(
            list(some[start : start + PLAIN_BATCH]),
            padding=True,
            truncation=True,
            max_length=model.heads.max_document_length,
            return_tensors="pt",
        )
        hidden = model.hidden_states(batch["input_ids"], batch["attention_mask"])
        model.dense(model.cls_state(hidden, batch["attention_mask"]))
        model.max_pool(hidden, batch["attention_mask"].bool())


def measure(
    runs: dict[str, Callable[[Sequence[str]], object]], some: Sequence[str], rounds: int
) -> dict[str, float]:
    """Return each one's median texts a second of processor time."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            before = time.process_time()
            run(some)
            seconds[name].append(time.process_time() - before)
    return {name: round(len(some) / median(each), 2) for name, each in seconds.items()}


@click.command()
@click.option("--documents", default=32, show_default=True, help="Texts of 200 tokens a round.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--bfloat16", is_flag=True, help="Measure torch in bfloat16 too.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(documents: int, rounds: int, bfloat16: bool, out: Path) -> None:
    """Measure documents of 200 tokens together, and queries of 12 tokens one by one."""
    torch.set_num_threads(1)
    encoder, with_torch = Encoder.load(threads=1), TorchEncoder.load(threads=1)
    half = TorchEncoder.load(threads=1, precision="bfloat16") if bfloat16 else None
    loaded, views = load_model(shipped_model()), (dense_view(), sparse_view())
    long, (query,) = texts(encoder, DOCUMENT, documents), texts(encoder, QUERY, 1)
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "versions": {
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            "torch": torch.__version__,
            "sentence-transformers": version("sentence-transformers"),
        },
        "processor": describe_cpu(),
        "documents_a_second": measure(
            {
                "Encoder": encoder.encode_documents,
                "TorchEncoder": with_torch.encode_documents,
                **({"TorchEncoder, bfloat16": half.encode_documents} if half else {}),
                "sentence-transformers, twice": lambda some: [
                    view.encode_document(some, show_progress_bar=False) for view in views
                ],
                "plain torch loop": lambda some: plain(loaded, some),
            },
            long,
            rounds,
        ),
        "queries_a_second": measure(
            {
                "Encoder": encoder.encode_queries,
                "TorchEncoder": with_torch.encode_queries,
                **({"TorchEncoder, bfloat16": half.encode_queries} if half else {}),
                "sentence-transformers, twice": lambda some: [
                    view.encode_query(some, show_progress_bar=False) for view in views
                ],
                "plain torch loop": lambda some: plain(loaded, some),
            },
            [query],
            rounds * 10,
        ),
    }
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
