"""What fine-tuning can learn from without labels: cosine, late interaction, and wordpiece BM25.

All score the documents of a batch against its queries. A cross-encoder's scores come with the rows
(`data.py`) instead.

Shapes: B queries, N documents, L tokens of one text, D hidden, P dense dimensions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from dupmae.errors import CheckpointError
from dupmae.folder import find_folder, first_line


class DenseTeacher:
    """A mean-pooled, normalised sentence encoder, such as all-MiniLM-L6-v2."""

    def __init__(self, folder: Path | str, device: torch.device) -> None:
        folder = find_folder(folder)
        try:
            self._model = AutoModel.from_pretrained(folder, local_files_only=True).eval().to(device)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"no teacher can be loaded from {folder}: {first_line(error)}"
            ) from error

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self._model.config.hidden_size)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], max_length: int, batch_size: int = 32) -> Tensor:
        """Return unit vectors (n, P) of n ≥ 1 texts, cut to `max_length` tokens, in their order."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        pieces = []
        for start in range(0, len(order), batch_size):
            inputs = self._tokenizer(
                [texts[number] for number in order[start : start + batch_size]],
                truncation=True,
                max_length=max_length,
                padding=True,
                return_tensors="pt",
            ).to(self._model.device)
            hidden_BLD = self._model(**inputs).last_hidden_state
            mask_BL1 = inputs["attention_mask"].unsqueeze(-1)
            mean_BD = (hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1)
            pieces.append(functional.normalize(mean_BD, dim=-1))
        return torch.cat(pieces)[torch.tensor(order, device=self._model.device).argsort()]


def mean_vectors(states: Sequence[Tensor]) -> Tensor:
    """Return the unit vectors (n, D) of the mean states of texts, each (L, D)."""
    return functional.normalize(torch.stack([state.mean(dim=0) for state in states]), dim=-1)


@dataclass(frozen=True)
class LateTeacher:
    """Late interaction of a frozen body's states: Σ_i w_i · max_j cos(q_i, d_j).

    The states of an encoder that was trained through their mean match token by token as well,
    once what all states share is taken off; what that finds the mean alone does not (ColBERT's
    score, Khattab and Zaharia 2020; distilled into one vector, Lin et al. 2021).
    """

    centre: Tensor
    """(D,) the mean of the states of many texts."""
    idf: Tensor
    """(V,) w of a query's tokens, before its length of 1."""

    @torch.no_grad()
    def score(
        self,
        query_ids: Sequence[Tensor],
        queries: Sequence[Tensor],
        documents: Sequence[Tensor],
    ) -> Tensor:
        """Return scores (B, N).

        Args:
            query_ids: each query's ids without specials.
            queries: each query's states, [CLS] first and [SEP] last.
            documents: each document's states, likewise.
        """
        query_TD = torch.cat([self._unit(states[1:-1]) for states in queries])
        best = [
            (query_TD @ self._unit(states[1:-1]).T).amax(dim=1)
            if len(states) > 2
            else query_TD.new_zeros(len(query_TD))
            for states in documents
        ]
        best_TN = torch.stack(best, dim=1)
        rows = [
            functional.normalize(self.idf[ids].to(scores.device), dim=0) @ scores
            for ids, scores in zip(
                query_ids, best_TN.split([len(ids) for ids in query_ids]), strict=True
            )
        ]
        return torch.stack(rows)

    def _unit(self, states_LD: Tensor) -> Tensor:
        return functional.normalize(states_LD.float() - self.centre, dim=-1)


@dataclass(frozen=True)
class LexicalTeacher:
    """BM25 in the encoder's own vocabulary, with a query's idf vector taken to length 1.

    So its scores do not grow with the query's length, and one scale fits words and paragraphs.
    """

    idf: Tensor
    """(V,) float32, ln(1 + (N − df + .5) / (df + .5))."""
    mean_length: float
    """Mean number of tokens of a document, above 0."""
    k1: float = 0.9
    b: float = 0.4

    @classmethod
    def fit(cls, documents: Iterable[Sequence[int]], vocabulary_size: int) -> LexicalTeacher:
        """Count document frequencies over tokenised documents."""
        frequency = np.zeros(vocabulary_size)
        total = count = 0
        for ids in documents:
            frequency[np.unique(np.asarray(ids, dtype=np.int64))] += 1
            total += len(ids)
            count += 1
        idf = np.log1p((count - frequency + 0.5) / (frequency + 0.5))
        # Never 0, which would divide lengths: texts may all be empty.
        return cls(torch.from_numpy(idf).float(), max(total, 1) / max(count, 1))

    def score(self, query_ids: Sequence[Tensor], document_ids: Sequence[Tensor]) -> Tensor:
        """Return BM25 scores (B, N) on the CPU, of texts given as ids without specials.

        Source: Robertson and Zaragoza (2009), with Lucene's idf.
        """
        vocabulary = torch.cat([*query_ids, *document_ids]).unique()
        query_BV = (_counts(query_ids, vocabulary) > 0) * self.idf[vocabulary]
        frequency_NV = _counts(document_ids, vocabulary)
        length_N1 = frequency_NV.sum(dim=-1, keepdim=True)
        norm_N1 = self.k1 * (1 - self.b + self.b * length_N1 / self.mean_length)
        impact_NV = frequency_NV * (self.k1 + 1) / (frequency_NV + norm_N1)
        return functional.normalize(query_BV, dim=-1) @ impact_NV.T


def _counts(texts: Sequence[Tensor], vocabulary: Tensor) -> Tensor:
    """Return how often each vocabulary entry occurs in each text, (n, V) float32."""
    counts = torch.zeros(len(texts), len(vocabulary))
    for number, ids in enumerate(texts):
        columns = torch.searchsorted(vocabulary, ids)
        counts[number] = torch.bincount(columns, minlength=len(vocabulary)).float()
    return counts
