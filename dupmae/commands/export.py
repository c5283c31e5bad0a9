"""`export`: an index to a file of vectors and a corpus file, or a model to a folder and a graph."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from dupmae.commands.extras import require_extra
from dupmae.commands.options import index_option
from dupmae.errors import UsageError


@click.command()
@click.argument("target", metavar="OUT|MODEL")
@click.option("--onnx", is_flag=True, help="Export MODEL, a folder or a name on the hub.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="With --onnx, the folder to write.  [default: MODEL-onnx]",
)
@index_option
@click.pass_context
def export(
    context: click.Context, target: str, onnx: bool, out: Path | None, index_folder: Path
) -> None:
    """Write the index's vectors to OUT, a .safetensors or .npz file, and its documents beside it.

    The documents go to OUT with .jsonl as its ending. `index OUT.jsonl --vectors OUT` makes the
    same index again, without encoding.

    With --onnx, write MODEL as a model folder that every command runs without torch, with the graph
    model.onnx in it for other programs. Both are checked to give torch's vectors.
    """
    if onnx:
        if context.get_parameter_source("index_folder") is not ParameterSource.DEFAULT:
            raise UsageError("--onnx exports a model, of which no --index knows; leave one out")
        _export_model(target, out)
        return
    if out is not None:
        raise UsageError("--out is the folder of --onnx; vectors go to the file OUT")
    from dupmae.engine import export_index

    file = Path(target)
    documents = export_index(index_folder, file)
    corpus = file.with_suffix(".jsonl")
    click.echo(f"exported {documents:,} documents to {file} and {corpus}", err=True)


def _export_model(model: str, out: Path | None) -> None:
    require_extra("train", "export --onnx")
    from dupmae.onnx_export import TEXTS, export_onnx

    out = out or _beside(Path(model))
    done = export_onnx(model, out)
    click.echo(
        f"{out} holds {done.name} (seal {done.seal[:12]}); --model {out} runs it without torch. "
        f"In {TEXTS} texts dense values are off from torch by up to {done.dense:.0e}, term "
        f"weights by {done.sparse:.0e}",
        err=True,
    )


def _beside(model: Path) -> Path:
    """Return the default folder: beside a model folder, or here for a model of the hub."""
    if not model.is_dir():
        return Path(f"{model.name}-onnx")
    named = model if model.name not in ("", "..") else model.resolve()
    return Path(f"{named}-onnx")
