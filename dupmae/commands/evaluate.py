"""`eval`: a BEIR collection, indexed if need be, searched, measured and reported."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dupmae.commands.options import (
    json_option,
    load_encoder,
    model_option,
    open_engine,
    threads_option,
)

if TYPE_CHECKING:
    from dupmae.engine import Manifest
    from dupmae.eval import Collection
    from dupmae.types import TextEncoder


@click.command("eval")
@click.option("--beir", "name", required=True, metavar="NAME", help="A BEIR collection, or demo.")
@click.option("--split", help="Which judgements.  [default: test; msmarco: dev]")
@click.option(
    "--data",
    "data_folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder to look for the collection in, before $DUPMAE_DATA and the cache.",
)
@click.option("-k", default=1000, show_default=True, help="Hits a query that are measured.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/eval"),
    show_default=True,
    help="Where the index, the TREC runs and the JSON report go.",
)
@model_option
@threads_option
@json_option
def eval_command(
    name: str,
    split: str | None,
    data_folders: tuple[Path, ...],
    k: int,
    out: Path,
    model: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure the sum, with and without feedback, and its two parts on a collection.

    An index that was made by the same encoder of the same corpus is used again. A query's own id
    never counts as a hit.
    """
    from dupmae.eval import SYSTEMS, System, evaluate, open_collection

    collection = open_collection(name, split=split, data_dirs=data_folders)
    encoder = load_encoder(model, threads)
    place = out / name.replace("/", "-")
    manifest = _index(collection, encoder, place / "index")
    heads = encoder.heads
    hybrid = System(heads.dense_weight, heads.sparse_weight, heads.feedback)
    systems = {**SYSTEMS, "hybrid": hybrid}
    if heads.feedback:
        systems["no-feedback"] = replace(hybrid, feedback=0.0)
    with open_engine(place / "index", encoder) as engine:
        report = evaluate(
            engine,
            collection,
            k=k,
            systems=systems,
            run_files={system: place / f"{system}.trec" for system in systems},
        )
    report = replace(
        report,
        model=encoder.name,
        index=str(place / "index"),
        details={
            "documents": manifest.documents,
            "model_seal": encoder.seal,
            "weights": {name: asdict(system) for name, system in systems.items()},
            "corpus_hash": manifest.corpus_hash,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["python", *sys.argv]),
        },
    )
    report.write(place / "report.json")
    click.echo(report.to_json() if as_json else report.table())


def _index(collection: Collection, encoder: TextEncoder, folder: Path) -> Manifest:
    """Return the manifest of an index of this corpus by this encoder, built if it is not there."""
    from dupmae.engine import build_index, corpus_hash, count_documents, read_corpus, read_manifest
    from dupmae.errors import IndexMissingError

    try:
        manifest = read_manifest(folder)
        digest = corpus_hash(read_corpus(collection.corpus_path))
        if (manifest.encoder_seal, manifest.corpus_hash) == (encoder.seal, digest):
            return manifest
    except IndexMissingError:
        pass  # none there, or a damaged one: made anew
    path = collection.corpus_path
    total = count_documents(path)
    return build_index(read_corpus(path), encoder, folder, replace=True, total=total)
