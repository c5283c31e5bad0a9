"""Texts → dense and sparse vectors, both from one forward pass of a model folder, without torch.

A text's vectors do not depend on the texts beside it, on their order, on padding or on the number
of threads, up to the rounding of float32 sums: 1e-5 on dense values and term weights is tested,
3e-5 on those of queries, which are larger. (A term whose weight lies within that of the last one
kept may be kept in one batch and cut in another.) `torch_encoder.py` gives the same vectors within
1e-5 (dense) and 1e-4 (term weights).

Every token that is not special votes in the max-pool, as in training. A text without one (empty,
or nothing but unknown words) has a dense vector and no terms.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from dupmae.base_encoder import BaseEncoder
from dupmae.config import load_config
from dupmae.errors import UsageError
from dupmae.folder import shipped_model
from dupmae.hardware import describe_cpu
from dupmae.heads import HeadSettings, check_servable
from dupmae.inputs import batches
from dupmae.runtime import RUNTIME, Network, Reading
from dupmae.stored import StoredModel, read_model
from dupmae.term_weights import (
    activate,
    corpus_factors,
    document_factors,
    expand_query,
    top_terms,
    unit,
)
from dupmae.types import (
    CorpusStatistics,
    Encoded,
    Float32,
    Int32,
    SparseVectors,
)

BATCH_TOKENS = 512
"""Of documents, padding included; each thread has such a batch at a time."""
QUERY_BATCH_TOKENS = 256
"""So that a few dozen queries keep all threads busy."""
_Row = tuple[Int32, Float32]


class Encoder(BaseEncoder):
    """A stored model, ready to encode; see the module for what it promises."""

    def __init__(
        self, model: StoredModel, heads: HeadSettings, *, threads: int | None = None
    ) -> None:
        weights = model.weights
        check_servable(
            heads,
            dense_dim=len(weights["cls_projection.weight"]),
            positions=model.body.max_position_embeddings,
            cls_attention="cls_attention.key.weight" in weights,
            knows_idf="training_idf" in weights,
        )
        super().__init__(model.name, heads, model.tokenizer, model.special_ids)
        self._seal = model.seal(heads)
        self._network = Network(model, heads)
        self._threads = threads or _processors()
        self._query_weight_V = np.maximum(weights["query_term_weight"].astype(np.float32), 0)
        idf_V = weights.get("training_idf")
        self._training_idf_V = None if idf_V is None else idf_V.astype(np.float32)

    @classmethod
    def load(
        cls,
        folder: Path | str | None = None,
        *,
        threads: int | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Encoder:
        """Load a model folder.

        Args:
            folder: a folder or a name on the Hugging Face hub; the shipped `dupmae-mini` if None.
            threads: batches that are encoded at once; as many as there are processors if None.
            settings: fields of `HeadSettings` to use instead of the folder's, such as
                `{"k_document": 128}`.

        Raises:
            TorchNeededError: the folder is not of the kind that `TorchEncoder.save` writes.
            CheckpointError: the folder is missing or damaged.
            UsageError: a setting or the number of threads is out of range.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, found {threads}")
        model = read_model(shipped_model() if folder is None else folder)
        heads = load_config(None, HeadSettings, asdict(model.heads) | dict(settings or {}))
        return cls(model, heads, threads=threads)

    @property
    def seal(self) -> str:
        """Hex digest of all that decides the vectors."""
        return self._seal

    @property
    def runtime(self) -> str:
        """What runs the model: the library's version, the precision, the processor."""
        return f"{RUNTIME} float32 on {describe_cpu()}"

    def encode_tokenised(self, ids: Sequence[Sequence[int]]) -> Encoded:
        """Do the second half: encode what `tokenise_documents` returned, in its order."""
        expands = self.heads.expands(as_query=False)
        return self._encode(ids, self._document_row, BATCH_TOKENS, expands=expands)

    def _encode_queries(
        self, ids: Sequence[Sequence[int]], corpus: CorpusStatistics | None
    ) -> Encoded:
        weigh = partial(self._query_row, corpus=corpus)
        expands = self.heads.expands(as_query=True)
        return self._encode(ids, weigh, QUERY_BATCH_TOKENS, expands=expands)

    def _encode(
        self,
        ids: Sequence[Sequence[int]],
        weigh: Callable[[Reading], _Row],
        budget: int,
        *,
        expands: bool,
    ) -> Encoded:
        dense = np.zeros((len(ids), self.dense_dim), dtype=np.float32)
        rows: list[_Row] = [(np.zeros(0, np.int32), np.zeros(0, np.float32))] * len(ids)

        def encode(batch: Sequence[int]) -> None:
            texts = self._network.read([ids[place] for place in batch], expands=expands)
            for place, text in zip(batch, texts, strict=True):
                dense[place] = unit(text.dense) if self.heads.normalize else text.dense
                rows[place] = weigh(text)

        _run_all(encode, list(batches([len(text) for text in ids], budget)), self._threads)
        return Encoded(dense, SparseVectors.from_rows(rows))

    def _document_row(self, text: Reading) -> _Row:
        heads = self.heads
        weights = activate(text.logits, heads) * document_factors(text.counts, text.length, heads)
        return top_terms(text.terms.astype(np.int32), weights.astype(np.float32), heads.k_document)

    def _query_row(self, text: Reading, corpus: CorpusStatistics | None) -> _Row:
        heads = self.heads
        weights = activate(text.logits, heads) * self._query_weight_V[text.terms]
        if corpus is not None:
            if self._training_idf_V is not None:
                weights = weights * corpus_factors(self._training_idf_V, text.terms, corpus, heads)
            # What no document has can expand nothing, and would take another term's place.
            weights = weights * ((text.counts > 0) | (corpus.frequency[text.terms] > 0))
        weights = expand_query(weights, text.counts, heads) * np.exp(text.log_gain)
        return top_terms(text.terms.astype(np.int32), weights.astype(np.float32), heads.k_query)


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


def _processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
