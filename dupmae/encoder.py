"""Texts → dense and sparse vectors, both from one forward pass of a model folder, without torch.

A text's vectors do not depend on the texts beside it, on their order, on padding or on the number
of threads, up to the rounding of float32 sums: 1e-5 on dense values and term weights is tested. (A
term whose weight lies within that of the last one kept may be kept in one batch and cut in
another.) `torch_encoder.py` gives the same vectors within 1e-5 (dense) and 1e-4 (term weights).

Every token that is not special votes in the max-pool, as in training. A text without one (empty,
or nothing but unknown words) has a dense vector and no terms.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from dupmae.config import load_config
from dupmae.errors import UsageError
from dupmae.folder import shipped_model
from dupmae.hardware import describe_cpu
from dupmae.heads import HeadSettings, check_servable
from dupmae.inputs import TEXTS_AT_ONCE, batches, goes_on, readable, spans
from dupmae.locating import TermLocator
from dupmae.runtime import RUNTIME, Network, Reading
from dupmae.stored import StoredModel, read_model
from dupmae.term_weights import activate, corpus_factors, document_factors, top_terms, unit
from dupmae.types import (
    CorpusStatistics,
    Encoded,
    Float32,
    Int32,
    Int64,
    SparseVectors,
    TermSpans,
)

BATCH_TOKENS = 1024
"""Padding included; each thread has such a batch at a time."""
_Row = tuple[Int32, Float32]


class Encoder:
    """A stored model, ready to encode; see the module for what it promises.

    Several threads may use one encoder at once.
    """

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
        self.name = model.name
        self.heads = heads
        """How the two vectors are formed and weighed."""
        self.seal = model.seal(heads)
        """Hex digest of all that decides the vectors."""
        self._network = Network(model, heads)
        self._threads = threads or _processors()
        self._tokenizer = model.tokenizer
        self._locator = TermLocator(model.tokenizer, heads.max_document_length, model.special_ids)
        self._tokenizing = threading.Lock()  # a tokenizer has one truncation for all threads
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
    def runtime(self) -> str:
        """What runs the model: the library's version, the precision, the processor."""
        return f"{RUNTIME} float32 on {describe_cpu()}"

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest term id."""
        return self._network.vocabulary_size

    @property
    def dense_dim(self) -> int:
        """Dimensions of a dense vector."""
        return self.heads.dense_dim

    @property
    def max_document_length(self) -> int:
        """Tokens of a document that are read, special ones included."""
        return self.heads.max_document_length

    def term_texts(self, terms: Sequence[int]) -> list[str]:
        """Return the vocabulary's entries for the given term ids."""
        return [str(self._tokenizer.id_to_token(int(term))) for term in terms]

    def locate_terms(
        self, texts: Sequence[str], wanted: Sequence[Int32 | None] | None = None
    ) -> list[TermSpans]:
        """Return where each text's own terms occur, as far as it is read as a document.

        Args:
            texts: any strings.
            wanted: of each text that is read whole, which terms (m,) to look for; None: all.
        """
        with self._tokenizing:
            return self._locator.locate(texts, wanted)

    def encode_queries(
        self, texts: Sequence[str], corpus: CorpusStatistics | None = None
    ) -> Encoded:
        """Encode texts as queries, in their order.

        Args:
            texts: any strings.
            corpus: where they will be searched for; without it a model with `corpus_idf` uses
                the idf of its training text.
        """
        ids, _ = self._token_ids(texts, self.heads.max_query_length)
        return self._encode(ids, partial(self._query_row, corpus=corpus))

    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        """Encode texts as documents, in their order."""
        return self.encode_tokenised(self.tokenise_documents(texts))

    def tokenise_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Do the first half of `encode_documents`: return each text's token ids.

        The next texts may be tokenised by one thread while another encodes these.
        """
        return self.read_documents(texts)[0]

    def read_documents(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Return what `tokenise_documents` does, and which texts go on behind what is read."""
        return self._token_ids(texts, self.heads.max_document_length)

    def token_spans(self, texts: Sequence[str]) -> list[Int64]:
        """Return the characters of all of each text's tokens, (n, 2), special ones left out."""
        with self._tokenizing:
            self._tokenizer.no_truncation()
            return [spans(text, self._spans) for text in texts]

    def encode_tokenised(self, ids: Sequence[Sequence[int]]) -> Encoded:
        """Do the second half: encode what `tokenise_documents` returned, in its order."""
        return self._encode(ids, self._document_row)

    def _token_ids(
        self, texts: Sequence[str], max_length: int
    ) -> tuple[list[list[int]], list[bool]]:
        """Return each text's first ids, and whether it goes on behind them."""
        ids: list[list[int]] = []
        cut = [goes_on(text, max_length) for text in texts]
        with self._tokenizing:
            self._tokenizer.enable_truncation(max_length)
            for start in range(0, len(texts), TEXTS_AT_ONCE):
                some = [readable(text, max_length) for text in texts[start : start + TEXTS_AT_ONCE]]
                for encoding in self._tokenizer.encode_batch_fast(some):
                    cut[len(ids)] |= bool(encoding.overflowing)
                    ids.append(encoding.ids)
        return ids, cut

    def _spans(self, text: str) -> list[tuple[int, int]]:
        return self._tokenizer.encode(text, add_special_tokens=False).offsets

    def _encode(self, ids: Sequence[Sequence[int]], weigh: Callable[[Reading], _Row]) -> Encoded:
        dense = np.zeros((len(ids), self.dense_dim), dtype=np.float32)
        rows: list[_Row] = [(np.zeros(0, np.int32), np.zeros(0, np.float32))] * len(ids)

        def encode(batch: Sequence[int]) -> None:
            for place, text in zip(batch, self._network.read([ids[p] for p in batch]), strict=True):
                dense[place] = unit(text.dense) if self.heads.normalize else text.dense
                rows[place] = weigh(text)

        _run_all(encode, list(batches([len(text) for text in ids], BATCH_TOKENS)), self._threads)
        return Encoded(dense, SparseVectors.from_rows(rows))

    def _document_row(self, text: Reading) -> _Row:
        heads = self.heads
        weights = activate(text.logits, heads) * document_factors(text.counts, text.length, heads)
        return top_terms(text.terms.astype(np.int32), weights.astype(np.float32), heads.k_document)

    def _query_row(self, text: Reading, corpus: CorpusStatistics | None) -> _Row:
        heads = self.heads
        weights = activate(text.logits, heads) * np.where(text.counts > 0, 1, heads.expansion)
        weights = weights * self._query_weight_V[text.terms]
        if corpus is not None and self._training_idf_V is not None:
            weights = weights * corpus_factors(self._training_idf_V, text.terms, corpus, heads)
        if heads.normalize_query_terms:
            weights = unit(weights)
        weights = weights * np.exp(text.log_gain)
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
