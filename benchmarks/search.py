"""How long a proven answer takes, beside other ways to get one, on the same vectors in one run.

    python benchmarks/search.py --real squad.index --queries squad/queries.jsonl --out search.json

Documents are drawn from those of real indexes (`drawn.py`), queries are real texts, encoded before
any clock runs. All ways answer each query in turn, so that whatever else the machine does disturbs
all alike. An answer is true if it has the k documents of the largest sums, and all their scores.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
from drawn import draw, real_vectors
from peers import PEERS, Peer
from safetensors.numpy import save_file
from scipy.sparse import csr_array

from dupmae.encoder import Encoder
from dupmae.engine import SearchEngine, VectorFiles, Weights, build_index
from dupmae.engine.fast import fuse_fast
from dupmae.engine.fusion import Stores, fuse_batch
from dupmae.engine.memory import resident_bytes
from dupmae.errors import DupMAEError
from dupmae.indexes import ForwardStore, top_k
from dupmae.types import Document, Encoded, Ranking

KS = (10, 100)
TOLERANCE = 1e-4
"""By how much a score may be off: peers count in float32."""
PACKAGES = (
    "dupmae",
    "numpy",
    "scipy",
    "faiss-cpu",
    "tantivy",
    "qdrant-edge-py",
    "pyseismic-lsr",
    "milvus-lite",
)
_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class Built:
    """An index of ours, opened."""

    engine: SearchEngine
    seconds: float
    open_ms: float
    bytes: int

    def peer(self, name: str, stores: Stores, *, is_fast: bool = False) -> Peer:
        """Return what answers from it, ids included."""

        def ask(query: Encoded, k: int) -> Ranking:
            (fused,) = (fuse_fast if is_fast else fuse_batch)(query, stores, k, Weights())
            assert fused.proven or is_fast
            self.engine.documents.ids(fused.ranking.ordinals)
            return fused.ranking

        return Peer(name, ask, self.seconds, self.bytes)


def build(
    folder: Path,
    vectors: Path,
    documents: int,
    encoder: Encoder,
    sparse: str = "inverted",
    *,
    hnsw: bool = False,
) -> Built:
    """Index drawn vectors as `index --vectors` does, and open the index."""
    started = time.perf_counter()
    with VectorFiles.open([vectors], encoder) as source:
        texts = (Document(f"d{number}", "") for number in range(documents))
        manifest = build_index(
            texts,
            source,
            folder,
            sparse=sparse,
            hnsw=hnsw,
            total=documents,
            borrow=False,  # the vectors hold what was borrowed
        )
    built = time.perf_counter()
    engine = SearchEngine.open(folder, encoder)
    opened = time.perf_counter()
    size = sum(file.size for file in manifest.files)
    return Built(engine, built - started, (opened - built) * 1e3, size)


def write_vectors(path: Path, blocks: Iterator[Encoded]) -> int:
    """Write drawn documents as a file of vectors with their ids; return how many."""
    parts = list(blocks)
    lengths = np.concatenate([np.diff(part.sparse.indptr) for part in parts])
    save_file(
        {
            "dense": np.concatenate([part.dense for part in parts]),
            "indptr": np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
            "terms": np.concatenate([part.sparse.terms for part in parts]),
            "weights": np.concatenate([part.sparse.weights for part in parts]),
        },
        path,
    )
    with path.with_suffix(".jsonl").open("w", encoding="utf-8") as file:
        for number in range(len(lengths)):
            file.write(f'{{"_id": "d{number}"}}\n')
    return len(lengths)


def truth(forward: ForwardStore, queries: Encoded, k: int) -> list[Ranking]:
    """Return the k best documents of each query by all sums, in blocks of documents."""
    size = len(forward.frequency)
    asked = csr_array(
        (queries.sparse.weights, queries.sparse.terms, queries.sparse.indptr), (len(queries), size)
    ).astype(np.float64)
    best = [Ranking(np.zeros(0, dtype=np.int64), np.zeros(0))] * len(queries)
    for start in range(0, len(forward), _BLOCK):
        rows = forward.sparse.rows(start, min(start + _BLOCK, len(forward)))
        documents = csr_array((rows.weights, rows.terms, rows.indptr), (len(rows), size))
        scores = forward.dense[start : start + _BLOCK].astype(np.float64) @ queries.dense.T
        scores += (documents @ asked.T).toarray()
        ordinals = np.arange(start, start + len(rows))
        for number, (before, column) in enumerate(zip(best, scores.T, strict=True)):
            joined = np.concatenate([before.ordinals, ordinals])
            best[number] = top_k(np.concatenate([before.scores, column]), k, joined)
    return best


def is_true(found: Ranking | None, best: Ranking, k: int) -> bool:
    """Say whether an answer has the k best documents with their scores."""
    if found is None or len(found) != min(k, len(best)):
        return False
    same = set(found.ordinals.tolist()) == set(best.ordinals[:k].tolist())
    return same and bool(np.all(np.abs(found.scores - best.scores[:k]) <= TOLERANCE))


def measure(
    peers: Sequence[Peer], queries: Encoded, best: list[Ranking], clock: Callable[[], float]
) -> list[dict[str, Any]]:
    """Return a row for each peer and k: quantiles of time, and how many answers are true."""
    one = [Encoded(queries.dense[[q]], queries.sparse.rows(q, q + 1)) for q in range(len(queries))]
    rows = []
    for k in KS:
        right, memory = [], []
        for peer in peers:  # a first round, for caches, answers and memory
            before = resident_bytes() or 0
            found = [peer.ask(query, k) for query in one]
            memory.append((resident_bytes() or 0) - before)
            right.append(sum(is_true(*pair, k) for pair in zip(found, best, strict=True)))
        times = np.empty((len(peers), len(one)))
        for number, query in enumerate(one):
            for place, peer in enumerate(peers):
                started = clock()
                peer.ask(query, k)
                times[place, number] = (clock() - started) * 1e3
        for place, peer in enumerate(peers):
            p50, p95, p99 = np.percentile(times[place], (50, 95, 99)).round(2).tolist()
            row: dict[str, Any] = {"name": peer.name, "k": k}
            row |= {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99}
            row |= {"true": right[place], "queries": len(one), "bytes": peer.bytes}
            row |= {"build_s": round(peer.build_seconds, 1)}
            row |= {"touched_mb": round(memory[place] / 1e6)}
            rows.append(row)
    return rows


def run_size(
    documents: int,
    real: Encoded,
    texts: Sequence[str],
    encoder: Encoder,
    chosen: Sequence[str],
    clock: Callable[[], float],
) -> list[dict[str, Any]]:
    """Build everything for one number of documents in a temporary folder, and measure it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vectors = folder / "vectors.safetensors"
        write_vectors(vectors, draw(real, documents, np.random.default_rng(0)))
        built = build(folder / "inverted", vectors, documents, encoder)
        stores, view = built.engine.view.stores, built.engine.view
        forward = view.parts[0].segment.forward
        queries = encoder.encode_queries(texts, view.corpus)
        by_lists = Stores(view, stores.dense, stores.sparse)
        peers = [built.peer("dupmae, proven", stores)]
        peers.append(built.peer("dupmae by lists: Faiss flat + inverted, proven", by_lists))
        if "fast" in chosen:
            other = build(folder / "fast", vectors, documents, encoder, hnsw=True)
            peers.append(other.peer("dupmae --mode fast", other.engine.view.stores, is_fast=True))
        for sparse in ("tantivy", "lucene"):
            if sparse in chosen:
                other = build(folder / sparse, vectors, documents, encoder, sparse)
                lists = other.engine.view.stores
                peers.append(other.peer(f"dupmae --sparse {sparse}, proven", lists))
                lists = Stores(other.engine.view, lists.dense, lists.sparse)
                peers.append(other.peer(f"dupmae by lists: Faiss flat + {sparse}, proven", lists))
        for name, make in PEERS.items():
            if name in chosen:
                place = folder / name
                place.mkdir()
                peers += _made(lambda make=make, place=place: make(forward, place), name)
        rows = measure(peers, queries, truth(forward, queries, max(KS)), clock)
    return [{"documents": documents, "open_ms": round(built.open_ms, 1), **row} for row in rows]


def _made(make: Callable[[], list[Peer]], name: str) -> list[Peer]:
    try:
        return make()
    except (ImportError, DupMAEError) as error:
        click.echo(f"{name} is left out: {error}", err=True)
        return []


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    header = ["documents", "k", "", "p50 / p95 / p99 ms", "true answers", "build s", "MB on disk"]
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    for row in rows:
        times = " / ".join(f"{row[f'p{q}_ms']:,.1f}" for q in (50, 95, 99))
        cells = [
            *(f"{row['documents']:,}", str(row["k"]), row["name"], times),
            *(f"{row['true']} of {row['queries']}", f"{row['build_s']:,.0f}"),
            f"{row['bytes'] / 1e6:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Return what figures depend on."""
    model = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": model,
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


@click.command()
@click.option("--real", "folders", multiple=True, required=True, type=click.Path(path_type=Path))
@click.option(
    "--queries", "query_files", multiple=True, required=True, type=click.Path(path_type=Path)
)
@click.option("--count", default=100, show_default=True, help="Queries, from all files alike.")
@click.option("--documents", multiple=True, type=int, default=[10_000, 100_000, 1_000_000])
@click.option(
    "--with",
    "chosen",
    multiple=True,
    type=click.Choice(["fast", "tantivy", "lucene", *PEERS]),
    default=["fast", "tantivy", *PEERS],
)
@click.option(
    "--cpu-time", is_flag=True, help="Count what all threads run, not the time: on a busy machine."
)
@click.option("--out", type=click.Path(path_type=Path))
def main(
    folders: tuple[Path, ...],
    query_files: tuple[Path, ...],
    count: int,
    documents: tuple[int, ...],
    chosen: tuple[str, ...],
    cpu_time: bool,
    out: Path | None,
) -> None:
    """Measure proven answers beside Faiss, SciPy, Qdrant Edge, Milvus Lite, Seismic and HNSW."""
    real, encoder = real_vectors(folders), Encoder.load()
    texts = []
    for path in query_files:
        lines = path.read_text(encoding="utf-8").splitlines()
        some = np.random.default_rng(0).choice(len(lines), count // len(query_files), replace=False)
        texts += [json.loads(lines[number])["text"] for number in some.tolist()]
    clock = time.process_time if cpu_time else time.perf_counter
    report: dict[str, Any] = {
        **machine(),
        "clock": clock.__name__,
        "real_documents": len(real),
        "rows": [],
    }
    for number in documents:
        report["rows"] += run_size(number, real, texts, encoder, chosen, clock)
        click.echo(table([row for row in report["rows"] if row["documents"] == number]))
        if out is not None:
            out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
