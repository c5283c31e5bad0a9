"""Token ids → vectors: a network reads batches of like lengths, and each reading is weighed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from dupmae.inputs import batches
from dupmae.readings import Network, Reading
from dupmae.term_weights import Row, TermWeights, unit
from dupmae.types import CorpusStatistics, Encoded, SparseVectors


@dataclass(frozen=True)
class Reader:
    """A network and what is made of its readings. Several threads may use one at once."""

    network: Network
    weights: TermWeights
    batch_tokens: int
    """Of documents, padding included."""
    query_batch_tokens: int
    at_once: int
    """Batches that are read at the same time, each by a thread."""

    def documents(self, ids: Sequence[Sequence[int]]) -> Encoded:
        """Encode documents, in their order."""
        expands = self.weights.heads.expands(as_query=False)
        return self._encode(ids, self.weights.document, self.batch_tokens, expands=expands)

    def queries(self, ids: Sequence[Sequence[int]], corpus: CorpusStatistics | None) -> Encoded:
        """Encode queries, in their order, for the given corpus or for any."""
        weigh = partial(self.weights.query, corpus=corpus)
        expands = self.weights.heads.expands(as_query=True)
        return self._encode(ids, weigh, self.query_batch_tokens, expands=expands)

    def _encode(
        self,
        ids: Sequence[Sequence[int]],
        weigh: Callable[[Reading], Row],
        budget: int,
        *,
        expands: bool,
    ) -> Encoded:
        heads = self.weights.heads
        dense = np.zeros((len(ids), heads.dense_dim), dtype=np.float32)
        rows: list[Row] = [(np.zeros(0, np.int32), np.zeros(0, np.float32))] * len(ids)

        def encode(batch: Sequence[int]) -> None:
            texts = self.network.read([ids[place] for place in batch], expands=expands)
            for place, text in zip(batch, texts, strict=True):
                dense[place] = unit(text.dense) if heads.normalize else text.dense
                rows[place] = weigh(text)

        _run_all(encode, list(batches([len(text) for text in ids], budget)), self.at_once)
        return Encoded(dense, SparseVectors.from_rows(rows))


def _run_all(
    work: Callable[[Sequence[int]], None], batches: Sequence[Sequence[int]], threads: int
) -> None:
    """Do the work on every batch, on several at once; an error or an interrupt ends it soon."""
    if threads == 1 or len(batches) < 2:
        for batch in batches:
            work(batch)
        return
    with ThreadPoolExecutor(min(threads, len(batches))) as pool:
        # What `map` returns cancels all that has not begun when waiting for it is given up.
        for _ in pool.map(work, batches):
            pass
