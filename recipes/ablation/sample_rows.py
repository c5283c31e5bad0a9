"""Draw rows of training files, and lay them out as collections too, to mine hard negatives in.

    python recipes/ablation/sample_rows.py --rows 1000 --out runs/rows a.jsonl.xz b.jsonl

Of each file it writes `NAME.jsonl`, {"query", "text"} a line, and a folder `NAME` in BEIR's layout
whose train split asks for each row's text with its query, in the same order. No query and no text
comes twice.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

from dupmae.data import Row, RowFile
from dupmae.errors import DupMAEError
from dupmae.files import replacing


def sample(source: Path, count: int) -> list[Row]:
    """Return so many rows drawn from a file, all if there are fewer."""
    rows: list[Row] = []
    seen: set[str] = set()
    with TemporaryDirectory() as unpacked:
        file = RowFile(source, Path(unpacked))
        for number in np.random.default_rng(0).permutation(len(file)):
            if len(rows) == count:
                break
            row = file[int(number)]
            if row.query.strip() and seen.isdisjoint((row.query, row.text)):
                rows.append(row)
                seen |= {row.query, row.text}
    return rows


def write(path: Path, records: Iterable[Mapping[str, str]]) -> None:
    """Write JSON lines; the file appears when it is whole."""
    with replacing(path) as file:
        file.writelines(json.dumps(record).encode() + b"\n" for record in records)


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder.")
@click.option("--rows", "count", default=1000, show_default=True, type=click.IntRange(1))
def main(*, sources: Sequence[Path], out: Path, count: int) -> None:
    """Draw rows of SOURCES: JSON lines with "query" and "text", plain, .gz or .xz."""
    for source in sources:
        rows = sample(source, count)
        name = source.name.partition(".")[0]
        folder = out / name
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        numbered = [(str(number), row) for number, row in enumerate(rows)]
        write(folder / "corpus.jsonl", ({"_id": i, "text": row.text} for i, row in numbered))
        write(folder / "queries.jsonl", ({"_id": i, "text": row.query} for i, row in numbered))
        judgements = "".join(f"{i}\t{i}\t1\n" for i, _ in numbered)
        (folder / "qrels" / "train.tsv").write_text(judgements, encoding="utf-8")
        write(out / f"{name}.jsonl", ({"query": row.query, "text": row.text} for row in rows))


if __name__ == "__main__":
    try:
        main()
    except DupMAEError as error:
        sys.exit(f"Error: {error}")
