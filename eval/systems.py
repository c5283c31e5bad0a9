"""Systems: whatever answers a query with ranked documents, so that it can be measured.

Ours with one weighting or another, indexes and run files of others, and the answers of a system
kept for those that are made of them. BM25 is in `bm25`, what fuses two systems in `fusions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from dupmae.eval.runs import Ranked, Run, columns, read_run
from dupmae.results import SearchResult
from dupmae.types import Document, Ranking


@dataclass(frozen=True, slots=True)
class Answers:
    """What a system answered to some queries.

    `run` has all of them. `results`, in the order of the queries, is where proofs and the parts of
    scores are read from; it is empty for a system that has neither.
    """

    run: Run
    results: tuple[SearchResult, ...] = ()


class System(Protocol):
    """What an evaluation needs of whatever it measures."""

    def search(self, queries: Mapping[str, str], k: int) -> Answers:
        """Answer each query (id → text) with at most k documents, best first."""
        ...


class Searcher(Protocol):
    """What `Weighted` needs of an engine; `dupmae.engine.SearchEngine` is one."""

    def search_batch(
        self,
        queries: Sequence[str],
        k: int,
        *,
        dense_weight: float,
        sparse_weight: float,
        feedback: float,
        mode: str,
    ) -> list[SearchResult]:
        """Answer each query with the k documents that score highest, best first."""
        ...


@dataclass(frozen=True, slots=True)
class Weighted:
    """An engine, asked with these weights of the two parts, and of feedback, in this mode."""

    searcher: Searcher
    dense_weight: float = 1.0
    sparse_weight: float = 1.0
    feedback: float = 0.0
    mode: str = "exact"

    @property
    def weights(self) -> dict[str, float]:
        """The weights by the names that `search_batch` has for them."""
        return {
            "dense_weight": self.dense_weight,
            "sparse_weight": self.sparse_weight,
            "feedback": self.feedback,
        }

    def search(self, queries: Mapping[str, str], k: int) -> Answers:
        """Answer from the engine; in the mode exact every answer has its proof."""
        results = self.searcher.search_batch(
            list(queries.values()), k, **self.weights, mode=self.mode
        )
        run = {
            query_id: result.hits.ranked()
            for query_id, result in zip(queries, results, strict=True)
        }
        return Answers(run, tuple(results))


def own_systems(
    searcher: Searcher,
    *,
    dense_weight: float = 1.0,
    sparse_weight: float = 1.0,
    feedback: float = 0.0,
) -> dict[str, Weighted]:
    """Return what one engine can be measured as: `hybrid`, its parts, and it without feedback.

    The parts alone have weight 1 and no feedback.
    """
    systems = {
        "hybrid": Weighted(searcher, dense_weight, sparse_weight, feedback),
        "dense": Weighted(searcher, sparse_weight=0.0),
        "sparse": Weighted(searcher, dense_weight=0.0),
    }
    if feedback:
        systems["no-feedback"] = Weighted(searcher, dense_weight, sparse_weight)
    return systems


class Remembered:
    """Another system, whose last answers are kept for whoever asks the same again."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._asked: tuple[dict[str, str], int] | None = None
        self._answers = Answers({})

    def search(self, queries: Mapping[str, str], k: int) -> Answers:
        """Answer as the other does."""
        asked = (dict(queries), k)
        if asked != self._asked:
            self._answers = self._system.search(queries, k)
            self._asked = asked
        return self._answers


class TextIndex(Protocol):
    """What `Positional` needs of another's index: it knows texts by their position."""

    def search(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """Answer each query with the ordinals of at most k texts, best first."""
        ...


@dataclass(frozen=True, slots=True)
class Positional:
    """An index of a corpus's texts, and the ids of its documents in that order."""

    index: TextIndex
    doc_ids: Sequence[str]

    @classmethod
    def build(
        cls, documents: Iterable[Document], make: Callable[[Iterable[str]], TextIndex]
    ) -> Positional:
        """Make an index of title and text of each document, joined by one space."""
        doc_ids: list[str] = []

        def texts() -> Iterator[str]:
            for document in documents:
                doc_ids.append(document.doc_id)
                yield document.content

        return cls(make(texts()), doc_ids)

    def search(self, queries: Mapping[str, str], k: int) -> Answers:
        """Answer from the index; halves of surrogate pairs become question marks."""
        texts = [text.encode("utf-8", "replace").decode() for text in queries.values()]
        rankings = self.index.search(texts, k)
        return Answers(
            {
                query_id: [
                    (self.doc_ids[ordinal], score)
                    for ordinal, score in zip(
                        ranking.ordinals.tolist(), ranking.scores.tolist(), strict=True
                    )
                ]
                for query_id, ranking in zip(queries, rankings, strict=True)
            }
        )


@dataclass(frozen=True, slots=True)
class Recorded:
    """The answers of a run; a query that it lacks has none."""

    run: Run

    @classmethod
    def read(cls, path: Path) -> Recorded:
        """Read a TREC run file, in the order and with the precision that trec_eval gives it.

        Raises:
            DataError: if it is not one.
        """
        return cls(
            {
                query_id: [(doc_id, float(np.float32(score))) for doc_id, score in ranked]
                for query_id, ranked in read_run(path).items()
            }
        )

    def search(self, queries: Mapping[str, str], k: int) -> Answers:
        """Answer what the run has for the queries' ids; their texts are not looked at."""
        return Answers({query_id: self.run.get(query_id, [])[:k] for query_id in queries})


def share_found(run: Run, truth: Run) -> float:
    """Return what part of the documents of one run another has, as a mean over its queries."""
    shares = []
    for query_id, ranked in truth.items():
        wanted, found = (set(columns(hits)[0]) for hits in (ranked, run[query_id]))
        if wanted:
            shares.append(len(wanted & found) / len(wanted))
    return float(np.mean(shares)) if shares else 1.0


def without_itself(query_id: str, ranked: Ranked) -> Ranked:
    """Drop the document that has the query's own id, which never counts as a hit."""
    doc_ids, _ = columns(ranked)
    return [hit for hit in ranked if hit[0] != query_id] if query_id in doc_ids else ranked
