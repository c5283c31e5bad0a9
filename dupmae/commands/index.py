"""`index`: from a corpus file, or the built-in demo corpus, to an index folder."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dupmae.commands.options import (
    index_option,
    json_option,
    load_device_encoder,
    load_encoder,
    model_option,
    threads_option,
)
from dupmae.errors import UsageError

if TYPE_CHECKING:
    from dupmae.engine import Chunk, Manifest, VectorFiles
    from dupmae.torch_encoder import Precision
    from dupmae.types import TextEncoder


CHUNK_TOKENS = 192
"""Of a passage; docs/indexing.md has what was measured."""
OVERLAPS = 6
"""A passage overlaps by its tokens divided by this."""


@click.command()
@click.argument("corpus", required=False, type=click.Path(path_type=Path))
@click.option(
    "--demo", "is_demo", is_flag=True, help="Index the built-in demo corpus: Python's own docs."
)
@click.option(
    "--vectors",
    "vector_files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Take the documents' vectors from this .safetensors or .npz file instead of encoding; "
    "may be given several times. A file that does not name its encoder needs --model: the one "
    "that queries will be encoded by.",
)
@click.option(
    "--sparse",
    type=click.Choice(["inverted", "tantivy", "lucene"]),
    help="What finds sparse candidates: what the index there has, else inverted; answers are "
    "the same. lucene needs dupmae[lucene].",
)
@click.option(
    "--hnsw/--no-hnsw",
    default=None,
    help="Make a graph too, for search --mode fast; takes long.  [default: as the index there, "
    "else not]",
)
@click.option(
    "--chunk",
    is_flag=False,
    flag_value=CHUNK_TOKENS,
    type=click.IntRange(1),
    metavar="[TOKENS]",
    help="Split documents into passages of up to so many tokens, "
    f"{CHUNK_TOKENS} if none are given; a document scores as its best passage does.  "
    "[default: as the index there, else whole]",
)
@click.option(
    "--overlap",
    type=click.IntRange(0),
    metavar="TOKENS",
    help="How many of them are in the passage before too.  [default: a sixth]",
)
@click.option(
    "--borrow/--no-borrow",
    default=None,
    help="Give each document some terms of its nearest documents in the index: better answers to "
    "questions about a subject, an index a tenth larger.  [default: as the index there, else the "
    "model's]",
)
@index_option
@model_option
@click.option(
    "--device",
    "devices",
    metavar="NAMES",
    help="Encode documents with torch there, by one process each: cuda for all GPUs, or names such "
    "as cuda:0,cuda:1.  [default: the processor, without torch]",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="Of --device.  [default: bfloat16 on a GPU]",
)
@click.option("--replace", is_flag=True, help="Begin anew instead of adding to the index there.")
@threads_option
@json_option
def index(
    corpus: Path | None,
    is_demo: bool,
    vector_files: tuple[Path, ...],
    index_folder: Path,
    model: str | None,
    devices: str | None,
    precision: Precision | None,
    threads: int | None,
    as_json: bool,
    **build: Any,
) -> None:
    """Index CORPUS, a JSON-lines file with "_id", "text" and perhaps "title" on each line.

    Where an index is, its documents are added to it, and replace those of the same "_id". Other
    keys of a line are kept as the document's metadata; the file may be gzipped. All of it appears
    when it is complete: a build that is stopped leaves what was there before, and the same command
    goes on with it.
    """
    if is_demo == (corpus is not None):
        raise UsageError("give a corpus file, or --demo for the built-in one")
    _check_devices(devices, precision, vector_files)
    build["chunk"] = _chunk(build["chunk"], build.pop("overlap"))
    from dupmae.engine import build_index, count_documents, read_corpus

    total: int | None
    if corpus is None:
        from dupmae.eval import demo_documents

        demo = list(demo_documents())  # a few thousand short texts
        documents, total = iter(demo), len(demo)
    else:
        documents, total = read_corpus(corpus), count_documents(corpus)
    with ExitStack() as stack:
        source: TextEncoder | VectorFiles
        if vector_files:
            source = stack.enter_context(_vectors(vector_files, model, threads))
        elif devices is None:
            source = load_encoder(model, threads)
        else:
            source = stack.enter_context(load_device_encoder(model, devices, precision, threads))
            build["block_size"] = source.documents_at_once
        started = time.monotonic()
        manifest = build_index(documents, source, index_folder, total=total, **build)
        seconds = time.monotonic() - started
        length = getattr(source, "max_document_length", 0)
    if as_json:
        click.echo(json.dumps(_summary(manifest, index_folder, seconds)))
    else:
        click.echo(
            f"{index_folder} holds {manifest.documents:,} documents{_passages(manifest)} "
            f"({seconds:.1f} s)",
            err=True,
        )
    if manifest.truncated:
        click.echo(_truncation(manifest, length), err=True)


def _chunk(tokens: int | None, overlap: int | None) -> Chunk | None:
    """Return how to split documents; None if that was not said."""
    if tokens is None:
        if overlap is not None:
            raise UsageError("--overlap is about passages; give --chunk too")
        return None
    from dupmae.engine import Chunk

    return Chunk(tokens, tokens // OVERLAPS if overlap is None else overlap)


def _check_devices(
    devices: str | None, precision: str | None, vector_files: tuple[Path, ...]
) -> None:
    """Refuse what would have no effect."""
    if devices is not None and vector_files:
        raise UsageError("--vectors brings the vectors, so there is nothing to do for --device")
    if precision is not None and devices is None:
        raise UsageError("--precision is that of --device; give one too")


def _vectors(vector_files: tuple[Path, ...], model: str | None, threads: int | None) -> VectorFiles:
    """Open files of vectors; those that name their encoder need no model."""
    from dupmae.engine import VectorFiles

    encoder = None if model is None else load_encoder(model, threads)
    return VectorFiles.open(vector_files, encoder)


def _passages(manifest: Manifest) -> str:
    return "" if manifest.passages is None else f" in {manifest.passages:,} passages"


def _truncation(manifest: Manifest, length: int) -> str:
    """Say how many documents are not read to their end; `length` is 0 if nothing was encoded."""
    some = f"{manifest.truncated:,} of {manifest.documents:,} documents"
    if manifest.chunk is not None:
        return f"{some} have titles so long that a passage is not read whole"
    read = f"the {length:,} tokens that are read" if length else "what is read"
    return f"{some} are longer than {read}; --chunk reads all of them"


def _summary(manifest: Manifest, folder: Path, seconds: float) -> dict[str, object]:
    return {
        "index": str(folder),
        "documents": manifest.documents,
        "truncated": manifest.truncated,
        "passages": manifest.passages,
        "bytes": sum(file.size for file in manifest.files),
        "encoder": manifest.encoder_name,
        "seal": manifest.encoder_seal,
        "seconds": round(seconds, 3),
    }
