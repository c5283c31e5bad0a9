"""Token ids → a batch for a network, and what comes back of it → one `Reading` a text.

This is what every network has in common, in NumPy: which tokens vote, which terms a text may get,
how often it holds them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dupmae.types import Float32, Int32, Int64

_Counts = tuple[Int64, Int64]
"""A text's own terms, and how often each occurs."""


class Reading(NamedTuple):
    """What the network says of one text."""

    dense: Float32
    """(P,), not normalised."""
    log_gain: float
    terms: Int64
    """(n,) strictly increasing: the text's own, and with expansion others that it may get."""
    logits: Float32
    """(n,) maxima over the tokens that vote."""
    counts: Int64
    """(n,) how often each term occurs in the text."""
    length: int
    """Tokens that vote."""


class Network(Protocol):
    """A model that reads; several threads may read with it at once."""

    def read(self, ids: Sequence[Sequence[int]], *, expands: bool = False) -> list[Reading]:
        """Read one batch.

        Args:
            ids: at least one text, each with at least [CLS] and [SEP].
            expands: also return terms that the texts do not contain; only with `expansion`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts below one another, T tokens in all, as a network needs them."""

    tokens_T: Int64
    lengths_B: Int32
    votes_T: NDArray[np.bool_]
    """The tokens that take part in the maximum."""
    own: list[_Counts]
    wanted: list[Int64] | None
    """The terms of which logits are needed, strictly increasing; None: all of the vocabulary."""

    def padded_terms(self) -> Int64:
        """Return `wanted` as (B, N), the short rows padded with zeros; at least one column."""
        assert self.wanted is not None
        padded_BN = np.zeros((len(self.wanted), max(1, *map(len, self.wanted))), dtype=np.int64)
        for padded_N, row in zip(padded_BN, self.wanted, strict=True):
            padded_N[: len(row)] = row
        return padded_BN


class Terms:
    """A vocabulary: which of its ids are terms, and which others each may bring."""

    def __init__(
        self,
        size: int,
        special_ids: Collection[int],
        head_bias_V: Float32,
        neighbours_VK: NDArray[np.integer] | None,
    ) -> None:
        """Take what the model says of terms.

        Args:
            size: of the tokenizer's vocabulary; some models pad theirs with rows without a text.
            special_ids: never terms.
            head_bias_V: of the vocabulary projection, at least `size` long.
            neighbours_VK: the terms that each may bring; any if None.
        """
        self.size = size
        self._bias_V = head_bias_V
        self._neighbours_VK = neighbours_VK
        self.is_term_V = np.arange(len(head_bias_V)) < size
        """Which ids vote, and are voted for."""
        self.is_term_V[list(special_ids)] = False

    def batch(self, ids: Sequence[Sequence[int]], *, expands: bool) -> Batch:
        """Gather texts; the arguments are those of `Network.read`."""
        lengths_B = np.array([len(text) for text in ids], dtype=np.int32)
        tokens_T = np.concatenate([np.asarray(text, np.int64) for text in ids])
        votes_T = self.is_term_V[tokens_T]
        ends = np.cumsum(lengths_B)[:-1]
        own = [
            np.unique(tokens[votes], return_counts=True)
            for tokens, votes in zip(np.split(tokens_T, ends), np.split(votes_T, ends), strict=True)
        ]
        own_terms = [terms for terms, _ in own]
        wanted = self._with_neighbours(own_terms) if expands else own_terms
        return Batch(tokens_T, lengths_B, votes_T, own, wanted)

    def readings(
        self, batch: Batch, dense_BP: Float32, log_gain_B: NDArray[Any], logits: Float32
    ) -> list[Reading]:
        """Return what the network says of each text.

        Args:
            batch: what was read.
            dense_BP: not normalised.
            log_gain_B: of queries.
            logits: the maxima without bias, of `padded_terms` or of the vocabulary (B, size).
        """
        of_texts = self._all(batch, logits) if batch.wanted is None else self._given(batch, logits)
        return [
            Reading(dense_P, float(gain), *of_text, int(counts.sum()))
            for dense_P, gain, of_text, (_, counts) in zip(
                dense_BP, log_gain_B, of_texts, batch.own, strict=True
            )
        ]

    def _given(self, batch: Batch, logits_BN: Float32) -> list[tuple[Int64, Float32, Int64]]:
        assert batch.wanted is not None
        found = []
        for logits_N, terms, own in zip(logits_BN, batch.wanted, batch.own, strict=True):
            counts_N = np.zeros(len(terms), dtype=np.int64)
            counts_N[np.searchsorted(terms, own[0])] = own[1]
            found.append((terms, logits_N[: len(terms)] + self._bias_V[terms], counts_N))
        return found

    def _all(self, batch: Batch, logits_BV: Float32) -> list[tuple[Int64, Float32, Int64]]:
        found = []
        for pooled_V, own in zip(logits_BV, batch.own, strict=True):
            logits_V = pooled_V + self._bias_V[: self.size]
            counts_V = np.zeros(self.size, dtype=np.int64)
            counts_V[own[0]] = own[1]
            # Every activation makes 0 of the rest: most of the vocabulary ends here.
            terms = np.flatnonzero((logits_V > 0) & self.is_term_V[: self.size])
            found.append((terms, logits_V[terms], counts_V[terms]))
        return found

    def _with_neighbours(self, own: Sequence[Int64]) -> list[Int64] | None:
        """Return each text's terms and those that they may bring; None if that may be any."""
        if self._neighbours_VK is None:
            return None
        wanted = []
        for own_N in own:
            wanted_V = np.zeros_like(self.is_term_V)
            wanted_V[own_N] = True
            wanted_V[self._neighbours_VK[own_N]] = True
            wanted.append(np.flatnonzero(wanted_V & self.is_term_V))
        return wanted
