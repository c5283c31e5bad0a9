"""Rows → the batch that one step of fine-tuning scores, the same on every process.

Each process draws its own rows; then all hold all of them, and each encodes its share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from tqdm import tqdm

from dupmae.contrastive import find_duplicates
from dupmae.data import Row, RowFile, cut_span, draw_rows
from dupmae.errors import UsageError
from dupmae.files import replacing
from dupmae.neighbours import neighbour_order
from dupmae.represent import Vocabulary
from dupmae.tokens import Tokens
from dupmae.trainer import Part
from dupmae.types import Int64

NEIGHBOUR_CHARACTERS = 500
"""Read of a text to find its neighbours; its first sentences say what it is about."""
NEIGHBOUR_ROWS = 1000
"""Tokenised at once for that: enough for the tokenizer's threads."""


@dataclass(frozen=True)
class DataSettings:
    """What rows to learn from."""

    files: tuple[str, ...]
    """JSON lines, plain, .gz or .xz, each {"query", "text", "title"?, "negatives"?, "scores"?}."""
    shares: tuple[str, ...] = ()
    """How often a batch comes from each file, as numbers; equal if empty."""
    block: int = 4
    """Consecutive rows that are drawn together, as each other's hard negatives."""
    neighbours: bool = False
    """Order each file's rows so that consecutive ones share rare words; counted once a run."""
    span_queries: float = 0.0
    """Share of rows whose query is replaced by a span cut out of the text."""
    negatives: int = 0
    """Given hard negatives used a query, the first ones."""
    query_length: int = 64
    """Tokens read of a query in training, [CLS] and [SEP] included."""
    document_length: int = 128
    """Tokens read of a document in training."""
    held_out: int = 32
    """Last rows of each file that are never drawn and serve the probe."""
    sampled_terms: int = 0
    """Random vocabulary entries added to each batch's own; for training expansion."""

    def __post_init__(self) -> None:
        if not self.files:
            raise UsageError("data.files names no training file")
        if self.shares and len(self.shares) != len(self.files):
            raise UsageError("data.shares must name one number for each of data.files")
        if not all(0 <= share < math.inf for share in self.file_shares) or not any(
            self.file_shares
        ):
            raise UsageError("data.shares must not be negative, and one must be above 0")
        least = {"block": 1, "negatives": 0, "held_out": 0, "sampled_terms": 0}
        least |= {"query_length": 3, "document_length": 3}  # room for [CLS], a token and [SEP]
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise UsageError(
                    f"data.{name} must be at least {limit}, found {getattr(self, name)}"
                )
        if not 0 <= self.span_queries <= 1:
            raise UsageError(f"data.span_queries must lie in [0, 1], found {self.span_queries}")

    @property
    def file_shares(self) -> list[float]:
        """`shares` as numbers."""
        try:
            return [float(share) for share in self.shares] or [1.0] * len(self.files)
        except ValueError as error:
            raise UsageError(f"data.shares must be numbers: {error}") from None


@dataclass(frozen=True)
class Texts:
    """One side of a batch: n texts and their ids with [CLS] and [SEP]."""

    texts: list[str]
    ids: list[list[int]]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Batch:
    """B queries and N documents; document i is query i's own, given negatives follow."""

    queries: Texts
    documents: Texts
    duplicates_BN: Tensor
    """True where another column is the query's own document again, or another cut of it."""
    given_columns_BG: Tensor
    """Columns of each query's own document and of its given negatives; −1 where there is none."""
    given_scores_BG: Tensor
    """A teacher's scores of those; −inf where there is none."""
    vocabulary: Vocabulary


class BatchSource:
    """Draws batches from row files; a batch is a function of the part alone."""

    def __init__(self, settings: DataSettings, tokens: Tokens, unpacked: Path) -> None:
        self._settings = settings
        self._tokens = tokens
        self.files = [RowFile(Path(path), unpacked) for path in settings.files]
        for file in self.files:
            if len(file) <= settings.held_out:
                raise UsageError(
                    f"{file.path} has {len(file)} rows, not more than data.held_out = "
                    f"{settings.held_out}; lower that"
                )
        self._orders = [self._order(file, unpacked) for file in self.files]

    def draw(self, part: Part, batch_size: int) -> Batch:
        """Return the batch of one part: `batch_size` rows of each process, all on every one.

        Raises:
            DataError: a row cannot be read.
        """
        rows = _everyones(self._draw_rows(part, batch_size), part.world_size)
        limit = self._settings.negatives
        texts, sources = [row.text for row in rows], [row.source for row in rows]
        columns = torch.full((len(rows), 1 + limit), -1)
        scores = torch.full((len(rows), 1 + limit), -torch.inf)
        for number, row in enumerate(rows):
            own = row.negatives[:limit]
            known = [number, *range(len(texts), len(texts) + len(own))]
            columns[number, : len(known)] = torch.tensor(known)
            if row.scores:
                scores[number, : len(known)] = torch.tensor(row.scores[: len(known)])
            texts.extend(own)
            sources.extend(own)
        queries = self._texts([row.query for row in rows], self._settings.query_length)
        documents = self._texts(texts, self._settings.document_length)
        # Not the part's own generator: a column must mean the same term to every process.
        chance = torch.Generator().manual_seed(part.step * part.of + part.index)
        vocabulary = Vocabulary.of(
            self._tokens, queries.ids + documents.ids, self._settings.sampled_terms, chance
        )
        device = self._tokens.device
        return Batch(
            queries,
            documents,
            find_duplicates(sources, len(rows)).to(device),
            columns.to(device),
            scores.to(device),
            vocabulary,
        )

    def held_out(self) -> list[tuple[str, str]]:
        """Return (query, text) of the rows that are never drawn."""
        count = self._settings.held_out
        rows = [
            file[number] for file in self.files for number in range(len(file) - count, len(file))
        ]
        return [(row.query, row.text) for row in rows]

    def sample_texts(self, count: int) -> list[str]:
        """Return about `count` texts, up to twice that, spread evenly over each file."""
        each = -(-count // len(self.files))
        return [
            file[number].text
            for file in self.files
            for number in range(0, len(file), max(1, len(file) // each))
        ]

    def _order(self, file: RowFile, folder: Path) -> Int64:
        """Return the numbers of the rows that may be drawn, neighbours together if wanted."""
        s = self._settings
        drawn = len(file) - s.held_out
        if not s.neighbours:
            return np.arange(drawn)
        kept = folder / f"{file.name}-neighbours-{drawn}-{s.block}.npy"
        if kept.exists():
            order: Int64 = np.load(kept)
            return order
        ids: list[list[int]] = []
        with tqdm(total=drawn, desc=file.path.name, unit="row", disable=None) as progress:
            for start in range(0, drawn, NEIGHBOUR_ROWS):
                rows = [file[number] for number in range(start, min(start + NEIGHBOUR_ROWS, drawn))]
                texts = [f"{row.query} {row.text[:NEIGHBOUR_CHARACTERS]}" for row in rows]
                ids += [text[1:-1] for text in self._tokens.ids(texts, NEIGHBOUR_CHARACTERS)]
                progress.update(len(rows))
        order = neighbour_order(ids, self._tokens.vocabulary_size, s.block)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as sink:
            np.save(sink, order)
        return order

    def _texts(self, texts: list[str], max_length: int) -> Texts:
        return Texts(texts, self._tokens.ids(texts, max_length))

    def _draw_rows(self, part: Part, batch_size: int) -> list[Row]:
        s = self._settings
        chance = part.generator
        shares = torch.tensor(s.file_shares)
        number = int(torch.multinomial(shares, 1, generator=chance))
        rows = draw_rows(self.files[number], self._orders[number], batch_size, s.block, chance)
        cut = torch.rand(len(rows), generator=chance) < s.span_queries
        return [
            cut_span(row, chance) if is_cut else row
            for row, is_cut in zip(rows, cut.tolist(), strict=True)
        ]


def encode_shares(encode: Callable[[list[int]], Tensor], total: int, part: Part) -> Tensor:
    """Encode this process's share of `total` texts (by position) and return all (total, P)."""
    mine = list(range(part.rank, total, part.world_size))
    return join_shares(encode(mine), mine, total, part.world_size)


def join_shares(mine: Tensor, positions: Sequence[int], total: int, world_size: int) -> Tensor:
    """Return all texts' rows (total, P); gradients flow to this process's own.

    Args:
        mine: (m, P), this process's rows.
        positions: where these stand among all; no two processes share one.
        total: texts of all processes.
        world_size: number of processes.
    """
    places = torch.tensor(positions, device=mine.device)
    values = torch.zeros(total, mine.shape[1], dtype=mine.dtype, device=mine.device)
    if world_size > 1:
        values[places] = mine.detach()
        distributed.all_reduce(values)
    return values.index_copy(0, places, mine)


def _everyones(rows: list[Row], world_size: int) -> list[Row]:
    if world_size == 1:
        return rows
    collected: list[Any] = [None] * world_size
    distributed.all_gather_object(collected, rows)
    return [row for rows in collected for row in rows]
