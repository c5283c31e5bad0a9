"""How long the sparse stores take to build, open and search, on random documents like real ones.

    python benchmarks/sparse_stores.py --documents 10000 --documents 100000

Prints a Markdown table. All stores answer the same queries in turn, so that whatever else the
machine does disturbs all alike; run it with OMP_NUM_THREADS=1 to hold each to one thread. With
--cpu-time a search counts the time that its thread ran, not what it waited for a busy machine.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
import numpy as np

from dupmae.indexes import (
    ExactSparse,
    ForwardStore,
    ForwardWriter,
    InvertedIndex,
    LuceneImpactIndex,
    SparseIndex,
    TantivyImpactIndex,
)
from dupmae.types import Encoded, Float32, Float64, Int32, SparseVectors

T = TypeVar("T")
Clock = Callable[[], float]

VOCABULARY = 30_522

RANKS = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, VOCABULARY]
SHARES = [
    *(0.9996, 0.9824, 0.9699, 0.9404, 0.7468, 0.5364, 0.1999, 0.1301),
    *(0.0763, 0.0388, 0.0223, 0.0115, 0.00348, 0.00092, 0.00012, 0.00001),
]
"""What share of documents holds the word piece of that rank: BERT's uncased pieces in 33,633 texts
(arXiv abstracts, Wikipedia paragraphs, SciFact, NFCorpus), with 121 ± 50 different ones each."""

LENGTH_SPREAD = 0.35
WEIGHT_MEAN, WEIGHT_SPREAD_OF_TERMS, WEIGHT_SPREAD_IN_TERM = 0.52, 0.28, 0.20
QUERY_SPREAD = 0.4
"""Means and standard deviations of logarithms, as in dupmae-mini's vectors of 150 texts; a query's
weights go with a term's inverse document frequency, as there."""

QUERY_LENGTHS = (12, 60)
DEPTHS = (64, 256, 1024)
REPEATS = 3
_BLOCK = 10_000


class Terms:
    """A vocabulary to draw documents from, each term independently of the others."""

    def __init__(self, rng: np.random.Generator) -> None:
        shares = np.exp(
            np.interp(np.log(np.arange(1, VOCABULARY + 1)), np.log(RANKS), np.log(SHARES))
        )
        # A Poisson number of occurrences with this mean is above 0 with that probability.
        occurrences = -np.log1p(-shares)
        self._occurrences = float(occurrences.sum())
        # Entry i of a table that repeats each term as it is frequent is faster than a search.
        borders = np.cumsum(occurrences) / self._occurrences
        terms = rng.permutation(VOCABULARY).astype(np.int32)
        self._table = terms[np.searchsorted(borders, (np.arange(1 << 22) + 0.5) / (1 << 22))]
        self._weights = rng.normal(WEIGHT_MEAN, WEIGHT_SPREAD_OF_TERMS, VOCABULARY)

    def documents(self, size: int, rng: np.random.Generator) -> SparseVectors:
        """Draw documents."""
        lengths = np.exp(rng.normal(-(LENGTH_SPREAD**2) / 2, LENGTH_SPREAD, size))
        counts = rng.poisson(self._occurrences * lengths)
        drawn = self._table[rng.integers(0, len(self._table), counts.sum())]
        owners = np.repeat(np.arange(size), counts)
        rows, terms = np.divmod(np.unique(owners * VOCABULARY + drawn), VOCABULARY)
        logarithms = self._weights[terms] + rng.normal(0, WEIGHT_SPREAD_IN_TERM, len(terms))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=size))])
        return SparseVectors(
            indptr.astype(np.int64), terms.astype(np.int32), np.exp(logarithms).astype(np.float32)
        )


def write_forward(folder: Path, documents: int, rng: np.random.Generator) -> ForwardStore:
    """Write a forward store of random documents, with dense vectors of one dimension."""
    terms = Terms(rng)
    with ForwardWriter(folder, 1, VOCABULARY) as writer:
        for start in range(0, documents, _BLOCK):
            block = terms.documents(min(_BLOCK, documents - start), rng)
            writer.add(Encoded(np.zeros((len(block), 1), dtype=np.float32), block))
    return ForwardStore.open(folder)


def draw_queries(
    forward: ForwardStore, length: int, count: int, rng: np.random.Generator
) -> SparseVectors:
    """Draw queries: 7 terms in 10 from one document, the others from another."""
    rows: list[tuple[Int32, Float32]] = []
    while len(rows) < count:
        first, second = (forward.sparse.row(int(i))[0] for i in rng.integers(0, len(forward), 2))
        shared, others = round(0.7 * length), np.setdiff1d(second, first)
        if min(len(first), len(others)) < length:
            continue
        terms = np.sort(
            np.append(
                rng.choice(first, shared, replace=False),
                rng.choice(others, length - shared, replace=False),
            )
        )
        frequency = forward.frequency[terms]
        idf = np.log1p((len(forward) - frequency + 0.5) / (frequency + 0.5))
        weights = idf * np.exp(rng.normal(0, QUERY_SPREAD, length))
        rows.append((terms, (weights / np.linalg.norm(weights)).astype(np.float32)))
    return SparseVectors.from_rows(rows)


def timed(action: Callable[[], T], clock: Clock = time.perf_counter) -> tuple[T, float]:
    """Return what an action gives, and in how many milliseconds."""
    start = clock()
    result = action()
    return result, (clock() - start) * 1e3


def search_times(
    stores: dict[str, SparseIndex], queries: SparseVectors, k: int, clock: Clock
) -> Float64:
    """Return milliseconds (stores, queries): the median of repeats, stores taking turns."""
    times = np.empty((REPEATS, len(stores), len(queries)))
    for repeat in range(REPEATS):
        for number in range(len(queries)):
            query = queries.rows(number, number + 1)
            for place, store in enumerate(stores.values()):
                times[repeat, place, number] = timed(partial(store.search, query, k), clock)[1]
    return np.median(times, axis=0)


def open_stores(
    folder: Path, vectors: SparseVectors
) -> tuple[dict[str, SparseIndex], dict[str, str]]:
    """Build and open all stores; return them with their cells "build s | size MB | open ms"."""
    stores: dict[str, SparseIndex] = {}
    costs = {}
    kinds: dict[str, type[InvertedIndex | LuceneImpactIndex | TantivyImpactIndex]] = {
        "inverted": InvertedIndex,
        "Tantivy": TantivyImpactIndex,
        "Lucene": LuceneImpactIndex,
    }
    for name, kind in kinds.items():
        _, built = timed(partial(kind.build, folder / name, vectors, VOCABULARY))
        opening: Callable[[], SparseIndex] = partial(kind.open, folder / name)
        stores[name], opened = timed(opening)
        size = sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file())
        costs[name] = f"{built / 1e3:.1f} | {size / 1e6:.1f} | {opened:.1f}"
    stores["exact"], opened = timed(lambda: ExactSparse(vectors, VOCABULARY))
    costs["exact"] = f"– | – | {opened:.1f}"
    return stores, costs


def measure(
    folder: Path, documents: int, queries: int, rng: np.random.Generator, clock: Clock
) -> list[str]:
    """Return the rows of the table for one number of documents."""
    forward = write_forward(folder / "forward", documents, rng)
    stores, costs = open_stores(folder, forward.sparse)
    table = []
    for length in QUERY_LENGTHS:
        batch = draw_queries(forward, length, queries, rng)
        cells: dict[str, list[str]] = {name: [] for name in stores}
        for k in DEPTHS:
            for name, times in zip(stores, search_times(stores, batch, k, clock), strict=True):
                percentiles = np.percentile(times, (50, 95, 99))
                cells[name].append(" / ".join(f"{value:.2f}" for value in percentiles))
        for name in stores:
            row = [name, f"{documents:,}", str(length), costs[name], *cells[name]]
            table.append(" | ".join(row))
    return table


@click.command()
@click.option("--documents", multiple=True, type=int, default=[10_000, 100_000], show_default=True)
@click.option("--queries", default=40, show_default=True, help="Of each length.")
@click.option("--seed", default=0, show_default=True)
@click.option("--cpu-time", is_flag=True, help="Do not count what a search waits.")
def main(documents: tuple[int, ...], queries: int, seed: int, cpu_time: bool) -> None:
    """Compare the inverted index, Tantivy, Lucene and SciPy's exact product on the same vectors."""
    click.echo(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    clock = time.thread_time if cpu_time else time.perf_counter
    depths = [f"p50 / p95 / p99 ms, n = {k}" for k in DEPTHS]
    header = ["store", "N", "terms", "build s", "size MB", "open ms", *depths]
    click.echo("\n".join([f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]))
    for number in documents:
        with tempfile.TemporaryDirectory() as folder:
            rng = np.random.default_rng(seed)
            for row in measure(Path(folder), number, queries, rng, clock):
                click.echo(f"| {row} |")


if __name__ == "__main__":
    main()
