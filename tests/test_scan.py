"""A scan finds what brute force finds, to the last bit, over segments with deletes and filters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from random_corpus import build_three_segments
from vector_strategies import VOCABULARY, dense_vectors, sparse_vectors

from dupmae.engine import SearchEngine, parse_filter, scan
from dupmae.engine.fusion import Fused, Stores, fuse, fuse_batch
from dupmae.engine.scan import Scan, ScannedPart
from dupmae.engine.view import View
from dupmae.engine.weights import Weights
from dupmae.indexes import ExactSparse, ForwardStore, ForwardWriter, InvertedIndex, SparseIndex
from dupmae.indexes.outline import DenseOutline
from dupmae.types import Encoded, Float32, SparseVectors


class NoLists:
    """A candidate store whose lists must not be needed."""

    def __init__(self, documents: int) -> None:
        self._documents = documents

    def __len__(self) -> int:
        return self._documents

    def search(self, queries: object, k: int) -> list[object]:
        raise AssertionError("a list was read")


def inverted(folder: Path, vectors: SparseVectors) -> SparseIndex:
    InvertedIndex.build(folder, vectors, VOCABULARY)
    return InvertedIndex.open(folder)


def listing(folder: Path, vectors: SparseVectors) -> SparseIndex:
    return ExactSparse(vectors, VOCABULARY)


def scanning(folder: Path, encoded: Encoded, sparse: Callable[..., SparseIndex]) -> Stores:
    with ForwardWriter(folder / "forward", encoded.dense.shape[1], VOCABULARY) as writer:
        writer.add(encoded)
    forward = ForwardStore.open(folder / "forward")
    DenseOutline.build(folder / "outline", forward.dense)
    index = sparse(folder / "sparse", forward.sparse)
    part = ScannedPart(
        DenseOutline.open(folder / "outline", forward.dense), index, None, lambda local: local
    )
    nothing = NoLists(len(encoded))
    return Stores(forward, nothing, nothing, scan=lambda *query: Scan([part], *query))


def rows(fused: Fused) -> list[tuple[int, float, float, float]]:
    ranking = fused.ranking
    return list(
        zip(
            *(ranking.ordinals.tolist(), ranking.scores.tolist()),
            *(fused.dense.tolist(), fused.sparse.tolist()),
            strict=True,
        )
    )


def brute_force(
    view: View | ForwardStore, query: Encoded, k: int, weights: Weights
) -> list[tuple[int, float, float, float]]:
    dense, sparse = view.score(query.dense[0], *query.sparse.row(0), np.arange(len(view)))
    scores = weights.combine(dense, sparse)
    best = np.lexsort((np.arange(len(view)), -scores))[:k]
    return [(int(i), float(scores[i]), float(dense[i]), float(sparse[i])) for i in best]


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    dense_vectors(st.just(30), 5),
    sparse_vectors(30, 30),
    dense_vectors(st.just(1), 5),
    sparse_vectors(1, 1),
    st.sampled_from([(1.0, 1.0), (1e-3, 7.0), (7.0, 1e-3), (1e-100, 1e100), (1e100, 1e-100)]),
    st.sampled_from([inverted, listing]),
)
def test_the_best_of_a_scan_are_those_of_brute_force(
    dense: Float32,
    sparse: SparseVectors,
    dense_query: Float32,
    sparse_query: SparseVectors,
    both: tuple[float, float],
    kind: Callable[..., SparseIndex],
) -> None:
    query, weights = Encoded(dense_query, sparse_query), Weights(*both)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "LIST_DEPTH", 3)
        stores = scanning(Path(folder), Encoded(dense, sparse), kind)
        shares_a_term = stores.forward.score(dense[0], *query.sparse.row(0), np.arange(30))[1] > 0
        for k in (1, 2, 5):
            if np.count_nonzero(shares_a_term) < k:
                continue  # then lists are read
            fused = fuse(query, stores, k, weights, first_depth=1)
            assert fused.proven
            assert rows(fused) == brute_force(stores.forward, query, k, weights)
            assert fused.bound <= fused.ranking.scores[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index of three segments, some documents of each deleted."""
    folder = tmp_path_factory.mktemp("scan") / "index"
    build_three_segments(folder, {}, {"sparse": "tantivy"}, {"sparse": "inverted"})
    return folder


@pytest.mark.parametrize(
    ("weights", "where"),
    [
        (Weights(), None),
        pytest.param(Weights(), "third = 1", marks=pytest.mark.slow),
        (Weights(0.2, 3.0), "third = 1"),
        pytest.param(Weights(0.2, 3.0), None, marks=pytest.mark.slow),
        (Weights(2.0, 0.1), None),
        pytest.param(Weights(2.0, 0.1), "third = 1", marks=pytest.mark.slow),
    ],
)
def test_an_index_of_several_segments_is_scanned_exactly(
    folder: Path, where: str | None, weights: Weights
) -> None:
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        assert len(engine.view.parts) == 3
        view = engine.view if where is None else engine.view.restricted(parse_filter(where))
        queries = engine.encoder.encode_queries([f"w{n} w{n * 7 % 90} w{n * 3}" for n in range(40)])
        answers = fuse_batch(queries, view.stores, 5, weights, first_depth=10)
        for number, fused in enumerate(answers):
            query = Encoded(queries.dense[[number]], queries.sparse.rows(number, number + 1))
            assert fused.proven
            assert rows(fused) == brute_force(view, query, 5, weights)
        assert np.mean([fused.depth for fused in answers]) < len(view) / 3


def test_few_documents_are_scored_where_bounds_are_tight(folder: Path) -> None:
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        query = engine.encoder.encode_queries(["w150 w160 w170"])
        fused = fuse(query, engine.view.stores, 1, Weights(), first_depth=4)
    assert fused.depth < 40


def test_an_index_of_format_3_has_no_outline_and_answers_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [f"w{n} w{n * 7 % 90}" for n in range(20)]
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        expected = engine.search_batch(queries, 5)
    monkeypatch.setattr("dupmae.engine.opened.OUTLINE_NAME", "none")
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        assert engine.view.stores.scan is None
        found = engine.search_batch(queries, 5)
    assert [result.hits for result in found] == [result.hits for result in expected]
