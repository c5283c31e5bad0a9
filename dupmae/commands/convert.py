"""`convert`: files of vectors to a collection of pyserini, and back."""

from __future__ import annotations

from pathlib import Path

import click

from dupmae.commands.options import load_encoder, model_option, threads_option
from dupmae.errors import UsageError

_ENDINGS = {".safetensors", ".npz"}


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    help="To pyserini: JSON lines with _id and text, encoded into TARGET/topics.tsv.",
)
@click.option(
    "--dense",
    type=click.Path(path_type=Path),
    help="From pyserini: a collection with the dense vectors of the same documents.  "
    "[default: zeros]",
)
@click.option(
    "--scale",
    default=100.0,
    show_default=True,
    help="An impact is a document's weight times this; to pyserini it is rounded, to 1 at least.",
)
@model_option
@threads_option
def convert(
    source: Path,
    target: Path,
    queries: Path | None,
    dense: Path | None,
    scale: float,
    model: str | None,
    threads: int | None,
) -> None:
    """Turn what `export` wrote into a JsonVectorCollection of pyserini, or one into such files.

    The one of SOURCE and TARGET that ends in .safetensors or .npz is the file of vectors, with its
    documents beside it in .jsonl; the other is a folder. --model is the encoder of the vectors.
    """
    exports = source.suffix in _ENDINGS
    if exports == (target.suffix in _ENDINGS):
        raise UsageError("one of SOURCE and TARGET must end in .safetensors or .npz")
    if (dense if exports else queries) is not None:
        raise UsageError("--dense is for vectors from pyserini, --queries for those to pyserini")
    from dupmae.engine import from_pyserini, to_pyserini

    encoder = load_encoder(model, threads)
    if exports:
        documents = to_pyserini(source, target, encoder, queries=queries, scale=scale)
    else:
        documents = from_pyserini(source, target, encoder, dense=dense, scale=scale)
    click.echo(f"converted {documents:,} documents into {target}", err=True)
