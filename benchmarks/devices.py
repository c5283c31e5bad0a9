"""How fast documents are encoded on a device, and how much of what it could compute that is.

    python benchmarks/devices.py --device cuda --peak 989 --out benchmarks/devices.json

`--peak` is the device's own figure of dense bfloat16 products, in TFLOP/s; without it no share is
said. Rates are of clock time, medians of rounds in which float32 and bfloat16 take turns. Texts are
tokenised before, but for the last line, which is the whole way from text to vectors by
`DeviceEncoder`: one process each for all devices that are named.

Counted is what the tokens of the texts need, not padding: of each token 24·D² multiplications and
additions a layer, 4·D times the text's length for attention, the heads, and two times D for each
term of the text.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median

import click
import torch

from dupmae.device_encoder import DeviceEncoder
from dupmae.encoder import Encoder
from dupmae.engine import read_corpus
from dupmae.eval import demo_documents
from dupmae.folder import read_config, shipped_model
from dupmae.heads import HeadSettings
from dupmae.torch_encoder import Precision, TorchEncoder

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def work(heads: HeadSettings, ids: Sequence[Sequence[int]]) -> float:
    """Return the floating-point operations that the vectors of texts need."""
    config = read_config(shipped_model())
    hidden, layers, wide = (
        config[name] for name in ("hidden_size", "num_hidden_layers", "intermediate_size")
    )
    a_token = layers * (8 * hidden**2 + 4 * hidden * wide) + 2 * hidden**2  # the last: MLM head
    if heads.cls_attention:
        a_token += 4 * hidden**2
    total = 0.0
    for text in ids:
        attention = layers * 4 * hidden * len(text)
        total += len(text) * (a_token + attention + 2 * hidden * len(set(text)))
    return total


def rates(encoders: dict[Precision, TorchEncoder], ids: Sequence[Sequence[int]], rounds: int
) -> dict[Precision, float]:  # fmt: skip
    """Return each one's median documents a second."""
    seconds: dict[Precision, list[float]] = {name: [] for name in encoders}
    for number in range(rounds + 1):
        for name, encoder in encoders.items():
            before = time.perf_counter()
            encoder.encode_tokenised(ids)  # what comes back is on this side: nothing is in flight
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - before)
    return {name: len(ids) / median(each) for name, each in seconds.items()}


@click.command()
@click.option("--device", "devices", default="cuda", show_default=True, help="Names with commas.")
@click.option("--corpus", type=click.Path(path_type=Path), help="[default: the demo corpus]")
@click.option("--documents", default=8192, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--peak", type=float, help="TFLOP/s of one device in bfloat16.")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    devices: str,
    corpus: Path | None,
    documents: int,
    rounds: int,
    peak: float | None,
    out: Path | None,
) -> None:
    """Measure and print."""
    source = demo_documents() if corpus is None else read_corpus(corpus)
    texts = [f"{each.title} {each.text}" for each in islice(source, documents)]
    texts = [texts[number % len(texts)] for number in range(documents)]
    names = devices.split(",")
    encoders = {name: TorchEncoder.load(device=names[0], precision=name) for name in PRECISIONS}
    ids = encoders["float32"].tokenise_documents(texts)
    found = rates(encoders, ids, rounds)
    operations = work(encoders["float32"].heads, ids) / len(ids)
    report: dict[str, object] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.processor() or platform.machine(),
        "runtime": encoders["bfloat16"].runtime,
        "seal": encoders["float32"].seal,
        "documents": len(ids),
        "tokens_a_document": sum(map(len, ids)) / len(ids),
        "gflop_a_document": operations / 1e9,
        "documents_a_second": found,
        "tflops": {name: rate * operations / 1e12 for name, rate in found.items()},
    }
    if peak is not None:
        report["share_of_peak"] = found["bfloat16"] * operations / (peak * 1e12)
    del encoders
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with DeviceEncoder(Encoder.load(), None, names) as encoder:
        encoder.encode_documents(texts)
        before = time.perf_counter()
        encoder.encode_documents(texts)
        rate = len(texts) / (time.perf_counter() - before)
        whole = {"devices": devices, "runtime": encoder.runtime, "documents_a_second": rate}
        report["whole_way"] = whole
    text = json.dumps(report, indent=1)
    click.echo(text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
