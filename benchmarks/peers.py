"""Other ways to answer the same queries over the same vectors; see `search.py`.

Each peer is built from a forward store in a folder and then answers (query, k) with ordinals and
scores. What is not installed is left out with a word.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import faiss
import numpy as np
from scipy.sparse import csr_array

from dupmae.indexes import ForwardStore, top_k
from dupmae.types import Encoded, Float32, Int32, Ranking

Ask = Callable[[Encoded, int], Ranking | None]

_BATCH = 1000
"""Documents given to a peer at a time."""
_CANDIDATES = 100
"""What approximate stores are asked for, of either part, before all are scored exactly."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Something that answers one query; `ask` may give no ranking where only time counts."""

    name: str
    ask: Ask
    build_seconds: float = 0.0
    bytes: int = 0


def exact_peers(forward: ForwardStore) -> list[Peer]:
    """Return Faiss alone, for the time of half the work, and every score by BLAS and SciPy."""
    started = time.perf_counter()
    shape = (len(forward), len(forward.frequency))
    rows = csr_array((forward.sparse.weights, forward.sparse.terms, forward.sparse.indptr), shape)
    columns = rows.tocsc()
    seconds = time.perf_counter() - started

    def flat(query: Encoded, k: int) -> None:
        faiss.knn(query.dense, forward.dense, k, faiss.METRIC_INNER_PRODUCT)

    def everything(query: Encoded, k: int) -> Ranking:
        terms, weights = query.sparse.row(0)
        scores = forward.dense @ query.dense[0] + columns[:, terms] @ weights
        return top_k(scores.astype(np.float64), k)

    size = int(forward.dense.nbytes)
    held = columns.data.nbytes + columns.indices.nbytes + columns.indptr.nbytes
    return [
        Peer("Faiss flat, dense part only", flat, 0.0, size),
        Peer("NumPy + SciPy, every score", everything, seconds, size + held),
    ]


def qdrant_peers(forward: ForwardStore, folder: Path) -> list[Peer]:
    """Return an embedded Qdrant's sum of exact dense and sparse lists, at three limits."""
    import qdrant_edge as qdrant

    started = time.perf_counter()
    shard = qdrant.EdgeShard.create(
        str(folder),
        qdrant.EdgeConfig(
            vectors={"d": qdrant.EdgeVectorParams(forward.dim, qdrant.Distance.Dot)},
            sparse_vectors={"s": qdrant.EdgeSparseVectorParams()},
            # No graph: nearest documents are asked for exactly, and at a million it takes hours.
            hnsw_config=qdrant.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
        ),
    )

    def sparse(terms: Int32, weights: Float32) -> object:
        return qdrant.SparseVector(terms.tolist(), weights.tolist())

    for start in range(0, len(forward), _BATCH):
        points = [
            qdrant.Point(
                row, {"d": forward.dense[row].tolist(), "s": sparse(*forward.sparse.row(row))}
            )
            for row in range(start, min(start + _BATCH, len(forward)))
        ]
        shard.update(qdrant.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.optimize()
    seconds = time.perf_counter() - started
    variable, nearest = qdrant.Expression.Variable, qdrant.Query.Nearest
    added = qdrant.Formula(
        qdrant.Expression.Sum([variable("$score[0]"), variable("$score[1]")]),
        {"$score[0]": 0.0, "$score[1]": 0.0},
    )

    def ask(query: Encoded, k: int, limit: int) -> Ranking:
        lists = [
            qdrant.Prefetch(
                limit,
                nearest(query.dense[0].tolist(), "d"),
                params=qdrant.SearchParams(exact=True),
            ),
            qdrant.Prefetch(limit, nearest(sparse(*query.sparse.row(0)), "s")),
        ]
        found = shard.query(qdrant.QueryRequest(k, query=added, prefetches=lists))
        ordinals = np.array([point.id for point in found], dtype=np.int64)
        return top_k(np.array([point.score for point in found], dtype=np.float64), k, ordinals)

    size = _bytes_in(folder)
    limits = {"100": 100, "1,000": 1000, "N": len(forward)}
    return [
        Peer(f"Qdrant Edge, sum of lists of {label}", partial(ask, limit=limit), seconds, size)
        for label, limit in limits.items()
    ]


def milvus_peers(forward: ForwardStore, folder: Path) -> list[Peer]:
    """Return Milvus Lite's sum of exact dense and sparse lists, at two limits; it has no N."""
    from pymilvus import AnnSearchRequest, DataType, MilvusClient, WeightedRanker

    started = time.perf_counter()
    client = MilvusClient(str(folder / "lite.db"))
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("d", DataType.FLOAT_VECTOR, dim=forward.dim)
    schema.add_field("s", DataType.SPARSE_FLOAT_VECTOR)
    indexes = client.prepare_index_params()
    indexes.add_index("d", index_type="FLAT", metric_type="IP")
    indexes.add_index("s", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection("vectors", schema=schema, index_params=indexes)

    def sparse(terms: Int32, weights: Float32) -> dict[int, float]:
        held = dict(zip(terms.tolist(), weights.tolist(), strict=True))
        return held or {len(forward.frequency): 1.0}  # it holds no empty one; no query has this

    for start in range(0, len(forward), _BATCH):
        rows = range(start, min(start + _BATCH, len(forward)))
        data = [
            {"id": row, "d": forward.dense[row].tolist(), "s": sparse(*forward.sparse.row(row))}
            for row in rows
        ]
        client.insert("vectors", data)
    client.flush("vectors")
    client.load_collection("vectors")
    seconds = time.perf_counter() - started

    def ask(query: Encoded, k: int, limit: int) -> Ranking:
        lists = [
            AnnSearchRequest([vector], field, {"metric_type": "IP"}, limit=limit)
            for vector, field in (
                (query.dense[0].tolist(), "d"),
                (sparse(*query.sparse.row(0)), "s"),
            )
        ]
        added = WeightedRanker(1.0, 1.0, norm_score=False)
        (found,) = client.hybrid_search("vectors", lists, added, limit=k)
        ordinals = np.array([hit["id"] for hit in found], dtype=np.int64)
        return top_k(np.array([hit["distance"] for hit in found], dtype=np.float64), k, ordinals)

    size = _bytes_in(folder)
    return [
        Peer(f"Milvus Lite, sum of lists of {limit:,}", partial(ask, limit=limit), seconds, size)
        for limit in (100, 1000)
    ]


def approximate_peers(forward: ForwardStore, folder: Path) -> list[Peer]:
    """Return Seismic and Faiss HNSW, what both list scored exactly."""
    import seismic

    started = time.perf_counter()
    graph = faiss.IndexHNSWFlat(forward.dim, 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 80
    graph.add(forward.dense)
    graph.hnsw.efSearch = 2 * _CANDIDATES
    text, dataset = seismic.get_seismic_string(), seismic.SeismicDataset()
    for row, (terms, weights) in enumerate(forward.sparse):
        dataset.add_document(str(row), terms.astype(text), np.ascontiguousarray(weights))
    index = seismic.SeismicIndex.build_from_dataset(dataset, num_threads=2)
    seconds = time.perf_counter() - started
    index.save(str(folder / "seismic"))
    faiss.write_index(graph, str(folder / "hnsw"))

    def ask(query: Encoded, k: int) -> Ranking:
        terms, weights = query.sparse.row(0)
        depth = max(_CANDIDATES, k)
        _, near = graph.search(query.dense, depth)
        sharing = index.search("q", terms.astype(text), weights, depth, len(terms), 0.8)
        listed = np.array([int(document) for _, _, document in sharing], dtype=np.int64)
        union = np.unique(np.concatenate([near[0][near[0] >= 0], listed]))
        dense, sparse = forward.score(query.dense[0], terms, weights, union)
        return top_k(dense + sparse, k, union)

    size = _bytes_in(folder)
    return [Peer("Seismic + HNSW, 100 of each scored exactly", ask, seconds, size)]


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


PEERS: Mapping[str, Callable[[ForwardStore, Path], list[Peer]]] = {
    "exact": lambda forward, folder: exact_peers(forward),
    "qdrant": qdrant_peers,
    "milvus": milvus_peers,
    "approximate": approximate_peers,
}
