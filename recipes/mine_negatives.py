"""Write the rows that fine-tuning reads, with hard negatives mined by our own engine if asked to.

    python recipes/mine_negatives.py data/msmarco rows.jsonl
    python recipes/mine_negatives.py data/msmarco rows.jsonl --index INDEX --model MODEL

The first argument is a collection in BEIR's layout. There is a row for each relevant document of
each query: {"query", "title", "text", "negatives": [{"title", "text"}, …]}. Negatives are drawn
from the best `--depth` documents of the query, by the sum of both parts, less the relevant ones.
The draw is a function of the query's place alone, so several machines can each make a part
(`--part 1 8` … `--part 8 8`). The encoder uses a GPU if there is one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from dupmae.engine import SearchEngine, build_index, count_documents, read_corpus, read_manifest
from dupmae.errors import DataError, DupMAEError, IndexMissingError, UsageError
from dupmae.eval import Collection, load_beir
from dupmae.files import replacing
from dupmae.torch_encoder import TorchEncoder
from dupmae.types import Document

QUERIES_AT_ONCE = 512
"""Searched between two moves of the progress bar."""

Row = dict[str, object]


@dataclass(frozen=True)
class Judged:
    """A query with the documents that are relevant to it."""

    number: int
    """Its place among the split's queries."""
    text: str
    relevant: list[str]


def open_engine(index: Path, collection: Collection, model: str | None) -> SearchEngine:
    """Open an index of the collection, building it first if nothing is there."""
    encoder = TorchEncoder.load(model, device="auto")
    try:
        read_manifest(index)
    except IndexMissingError:  # if it is there but damaged, building says so
        path = collection.corpus_path
        build_index(read_corpus(path), encoder, index, total=count_documents(path))
    heads = encoder.heads
    return SearchEngine.open(
        index, encoder, dense_weight=heads.dense_weight, sparse_weight=heads.sparse_weight
    )


def plain_rows(collection: Collection, queries: Sequence[Judged]) -> Iterator[Row]:
    """Yield a row for each relevant document of each query, without negatives."""
    wanted = {doc_id for query in queries for doc_id in query.relevant}
    corpus = read_corpus(collection.corpus_path)
    texts = {document.doc_id: document for document in corpus if document.doc_id in wanted}
    if wanted - texts.keys():
        raise DataError(f"{collection.corpus_path} lacks the judged {min(wanted - texts.keys())}")
    for query in queries:
        for doc_id in query.relevant:
            yield {"query": query.text, **_content(texts[doc_id])}


def mined_rows(
    engine: SearchEngine, queries: Sequence[Judged], *, depth: int, negatives: int
) -> Iterator[Row]:
    """Yield the same rows with hard negatives.

    Args:
        engine: of the collection's corpus.
        queries: to search for.
        depth: best documents of a query that negatives are drawn from.
        negatives: how many are drawn, all if there are fewer.
    """
    remaining = iter(tqdm(queries, unit="query", disable=None))
    while chunk := list(islice(remaining, QUERIES_AT_ONCE)):
        results = engine.search_batch([query.text for query in chunk], depth)
        for query, result in zip(chunk, results, strict=True):
            others = [doc_id for doc_id in result.hits.doc_ids if doc_id not in query.relevant]
            drawn = np.random.default_rng(query.number).permutation(len(others))[:negatives]
            hard = [_content(text) for text in _fetch(engine, [others[place] for place in drawn])]
            for text in _fetch(engine, query.relevant):
                yield {"query": query.text, **_content(text), "negatives": hard}


def judged_queries(collection: Collection, part: tuple[int, int]) -> list[Judged]:
    """Return the queries of one part: (which, of how many), the first is 1."""
    which, parts = part
    if which > parts:
        raise UsageError(f"there are {parts} parts, so no part {which}")
    return [
        Judged(number, text, [doc for doc, grade in collection.qrels[name].items() if grade > 0])
        for number, (name, text) in enumerate(collection.queries.items())
        if number % parts == which - 1
    ]


def _fetch(engine: SearchEngine, ids: Sequence[str]) -> list[Document]:
    return engine.documents.get([engine.documents.ordinal(doc_id) for doc_id in ids])


def _content(document: Document) -> dict[str, str]:
    title = {"title": document.title} if document.title else {}
    return {**title, "text": document.text}


def write(rows: Iterable[Row], path: Path) -> None:
    """Write rows as JSON lines; the file appears when it is whole."""
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(row).encode() + b"\n")


@click.command()
@click.argument("collection", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--split", default="train", show_default=True, help="Whose queries.")
@click.option("--index", type=click.Path(path_type=Path), help="Mine here; built if it is missing.")
@click.option("--model", help="The index's encoder.  [default: the shipped one]")
@click.option("--depth", default=200, show_default=True, type=click.IntRange(1))
@click.option("--negatives", default=15, show_default=True, type=click.IntRange(1))
@click.option(
    "--part", nargs=2, type=click.IntRange(1), default=(1, 1), help="k n: the k-th of n parts."
)
def main(
    *,
    collection: Path,
    output: Path,
    split: str,
    index: Path | None,
    model: str | None,
    depth: int,
    negatives: int,
    part: tuple[int, int],
) -> None:
    """Write rows of COLLECTION to OUTPUT, a JSON-lines file."""
    judged = load_beir(collection, split)
    queries = judged_queries(judged, part)
    if index is None:
        write(plain_rows(judged, queries), output)
        return
    with open_engine(index, judged, model) as engine:
        write(mined_rows(engine, queries, depth=depth, negatives=negatives), output)


if __name__ == "__main__":
    try:
        main()
    except DupMAEError as error:
        sys.exit(f"Error: {error}")
