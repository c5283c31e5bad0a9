"""`info`, `verify`, `delete`, `compact`, `snapshot` and `restore`: what keeps an index in order.

None of them needs the model.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import click

from dupmae.commands.options import index_option, json_option
from dupmae.errors import IndexMissingError, UsageError


@click.command()
@index_option
@json_option
def info(index_folder: Path, as_json: bool) -> None:
    """Say what the index holds, and by which encoder."""
    from dupmae.engine import manifest_fields, read_manifest

    found = manifest_fields(read_manifest(index_folder))
    if as_json:
        click.echo(json.dumps(found))
        return
    segments = found.pop("segments")
    if found["truncated"] is None:
        found["truncated"] = "unknown"
    chunk, passages = found.pop("chunk"), found.pop("passages")
    if chunk is not None:
        found["passages"] = (
            f"{passages}, of up to {chunk['tokens']} tokens that overlap by {chunk['overlap']}"
        )
    if (borrow := found.get("borrow")) is not None:
        found["borrow"] = f"up to {borrow['terms']} terms, of {borrow['neighbours']} neighbours"
    for key, value in found.items():
        click.echo(f"{key.replace('_', ' '):<16} {value}")
    for segment in segments:
        click.echo(
            f"{'segment ' + segment['name']:<16} {segment['documents']} documents, "
            f"{segment['deleted']} of them deleted, {segment['bytes']} bytes"
            + (", with a graph for search --mode fast" if segment["hnsw"] else "")
        )


@click.command()
@click.option(
    "--deep", is_flag=True, help="Look also at what the files say, not only at checksums."
)
@index_option
@click.pass_context
def verify(context: click.Context, deep: bool, index_folder: Path) -> None:
    """Read every file of the index and say what is damaged; exit code 3 if anything is."""
    from dupmae.engine import verify_index

    problems = verify_index(index_folder, deep=deep)
    for problem in problems:
        click.echo(f"Error: {problem}", err=True)
    if problems:
        context.exit(IndexMissingError.exit_code)
    click.echo(f"{index_folder}: nothing is wrong")


@click.command()
@click.argument("doc_ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--ids",
    "id_file",
    type=click.Path(path_type=Path),
    help='A file of ids: one a line, or a .jsonl file with an "_id" on each line.',
)
@click.option("--missing-ok", is_flag=True, help="Pass over ids that no document has.")
@click.option(
    "--where", metavar="FILTER", help="In place of ids: all documents whose metadata match."
)
@index_option
def delete(
    doc_ids: tuple[str, ...],
    id_file: Path | None,
    missing_ok: bool,
    where: str | None,
    index_folder: Path,
) -> None:
    """Delete the documents of these IDs, all or none. `compact` then takes them off the disk."""
    if (where is None) == (not doc_ids and id_file is None):
        raise UsageError(
            "give the ids of documents, or --ids with a file of them, or --where without ids"
        )
    from dupmae.engine import delete_documents, delete_matching, read_id_file

    if where is not None and missing_ok:
        raise UsageError("--missing-ok is about ids; with --where there are none")
    if where is not None:
        deleted = delete_matching(index_folder, where)
    else:
        ids = chain(doc_ids, () if id_file is None else read_id_file(id_file))
        deleted = delete_documents(index_folder, ids, missing_ok=missing_ok)
    click.echo(f"deleted {deleted:,} documents of {index_folder}", err=True)


@click.command()
@index_option
def compact(index_folder: Path) -> None:
    """Write the index as one segment without what was deleted; nothing is encoded."""
    from dupmae.engine import compact as merge_all

    manifest = merge_all(index_folder)
    click.echo(f"{index_folder} holds {manifest.documents:,} documents, compacted", err=True)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@index_option
def snapshot(out: Path, index_folder: Path) -> None:
    """Write the index as it is now to OUT, a tar file; others may search and write meanwhile."""
    from dupmae.engine import snapshot_index

    manifest = snapshot_index(index_folder, out)
    click.echo(f"{out} holds {manifest.documents:,} documents of {index_folder}", err=True)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@index_option
def restore(file: Path, index_folder: Path) -> None:
    """Make an index of FILE, a snapshot, where none is."""
    from dupmae.engine import restore_index

    manifest = restore_index(file, index_folder)
    click.echo(f"{index_folder} holds {manifest.documents:,} documents of {file}", err=True)
