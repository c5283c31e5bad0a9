"""Exact search by somebody else's model of sentence-transformers, so that `eval` can measure it.

Prompts, cuts, pooling and similarity are those that the model itself names. Vectors are kept in
memory only, and every text is scored for every query.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.util import load_file_path
from torch import Tensor
from tqdm import tqdm

from dupmae.errors import CheckpointError, UsageError
from dupmae.indexes.topk import top_k
from dupmae.types import Float64, Ranking

_BLOCK = 4096
"""Texts encoded and scored at once: the library sorts them by length, so that batches fit."""


class SentenceIndex:
    """Texts as the vectors that a model makes of them; also such texts as score 0 are found."""

    def __init__(self, model: SentenceTransformer | SparseEncoder, texts: Iterable[str]) -> None:
        self._model = model
        self._blocks: list[Tensor] = []
        with tqdm(desc="vectors", unit="doc", disable=None) as bar:
            for block in _blocks_of(texts):
                self._blocks.append(_vectors(model.encode_document, block))
                bar.update(len(block))

    def search(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """Return the k ≥ 1 texts of the highest similarity to each query, ties by position."""
        vectors = _vectors(self._model.encode_query, queries)
        best = [top_k(np.zeros(0), k) for _ in queries]
        start = 0
        for block in self._blocks:
            scores = self._scores(vectors, block)
            best = [
                _joined(ranking, row, start, k) for ranking, row in zip(best, scores, strict=True)
            ]
            start += len(block)
        return best

    def _scores(self, queries: Tensor, texts: Tensor) -> Float64:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support")  # is in beta state
            scores: Float64 = self._model.similarity(queries, texts).numpy().astype(np.float64)
        return scores


def load_sentence_model(name: str, *, sparse: bool) -> SentenceTransformer | SparseEncoder:
    """Load a dense or a sparse model from a folder; what is no folder is a name on the hub.

    No code that comes with a model is run.

    Raises:
        UsageError: if the model is of another kind.
        CheckpointError: if it cannot be loaded.
    """
    wanted = SparseEncoder if sparse else SentenceTransformer
    try:
        kind = _kind(name)
        if kind in (None, wanted.__name__):
            return wanted(name, local_files_only=Path(name).is_dir())
    except Exception as error:  # the library lets through whatever its parts raise
        reason = " ".join(str(error).split())
        raise CheckpointError(f"sentence-transformers cannot load {name}: {reason}") from error
    raise UsageError(
        f"{name} is a {kind} and no {wanted.__name__}; "
        "st: takes a SentenceTransformer, st-sparse: a SparseEncoder"
    )


def _kind(name: str) -> str | None:
    """Return the class that a model was saved by; None of a plain checkpoint, which any may take.

    The library would turn one kind into another, with a warning and untrained weights.
    """
    modules, config = (
        load_file_path(name, file, local_files_only=Path(name).is_dir())
        for file in ("modules.json", "config_sentence_transformers.json")
    )
    if modules is None:
        return None
    named = {} if config is None else json.loads(Path(config).read_text("utf-8"))
    kind: str = named.get("model_type", SentenceTransformer.__name__)  # the only one once
    return kind


def _blocks_of(texts: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(texts)
    while block := list(islice(remaining, _BLOCK)):
        yield block


def _vectors(encode: Callable[..., Any], texts: Sequence[str]) -> Tensor:
    """Return a row a text, (n, dim), of a sparse model in sparse layout."""
    vectors: Tensor = encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
    return vectors.cpu().float()


def _joined(ranking: Ranking, scores: Float64, start: int, k: int) -> Ranking:
    """Return the k best of a ranking and of the texts that follow, whose first has `start`."""
    block = top_k(scores, k)
    return top_k(
        np.concatenate([ranking.scores, block.scores]),
        k,
        np.concatenate([ranking.ordinals, block.ordinals + start]),
    )
