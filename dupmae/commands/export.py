"""`export`: from an index folder to a file of vectors and a corpus file."""

from __future__ import annotations

from pathlib import Path

import click

from dupmae.commands.options import index_option


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@index_option
def export(out: Path, index_folder: Path) -> None:
    """Write the index's vectors to OUT, a .safetensors or .npz file, and its documents beside it.

    The documents go to OUT with .jsonl as its ending. `index OUT.jsonl --vectors OUT` makes the
    same index again, without encoding.
    """
    from dupmae.engine import export_index

    documents = export_index(index_folder, out)
    corpus = out.with_suffix(".jsonl")
    click.echo(f"exported {documents:,} documents to {out} and {corpus}", err=True)
