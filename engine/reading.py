"""How the documents of a segment were read: `reading/` beside its vectors.

`truncated.npy` (t,) int64, rising, names the documents of which the encoder read only a part. Where
documents are split into passages (`chunking.py`), `indptr.npy` (N + 1,) int64 says that the vectors
of document i are those from indptr[i] to indptr[i + 1], one a passage, at least one; and
`spans.npy` (P, 2) int64 names the characters of each passage in its document's text.

There is no such folder where nobody knows: with vectors made elsewhere, with an encoder that cannot
say, and in segments of format 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dupmae.errors import IndexMissingError
from dupmae.indexes.npy import NpyFiles, NpyWriter, open_npy
from dupmae.types import Bool, Int64, Passage

READING_NAME = "reading"
TRUNCATED_NAME = "truncated.npy"
INDPTR_NAME = "indptr.npy"
SPANS_NAME = "spans.npy"


@dataclass(frozen=True, slots=True, eq=False)
class BlockReading:
    """How n documents were read: which are `truncated`, (n,), and where their passages lie.

    `spans` holds an array (p, 2) for each document, or None where documents are not split.
    """

    truncated: Bool
    spans: Sequence[Int64] | None = None


class ReadingWriter(NpyFiles):
    """Writes how documents were read, block by block, as `ForwardWriter` writes vectors.

    Args:
        folder: made if missing; nothing is written there unless it `is_known` how they were read.
        is_known: see above.
        is_split: whether documents are split into passages.
        keep: (documents, vectors, truncated documents) of an earlier writer in that folder, to go
            on after.

    Raises:
        IndexMissingError: if the folder holds less than is to be kept.
    """

    def __init__(
        self,
        folder: Path,
        *,
        is_known: bool,
        is_split: bool,
        keep: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        super().__init__(folder)
        self._documents, self._vectors, self.truncated = keep
        self._named: NpyWriter | None = None
        self._split: tuple[NpyWriter, NpyWriter] | None = None
        if is_known:
            folder.mkdir(parents=True, exist_ok=True)
            self._named = self.begin(TRUNCATED_NAME, np.int64, keep=self.truncated)
        if is_split:
            self._split = (
                self.begin_borders(INDPTR_NAME, keep=self._documents),
                self.begin(SPANS_NAME, np.int64, (2,), keep=self._vectors),
            )

    def add(self, block: BlockReading) -> None:
        """Append documents."""
        rows = np.flatnonzero(block.truncated)
        if self._named is not None:
            self._named.append(rows + self._documents)
        if self._split is not None and block.spans is not None:
            borders, places = self._split
            ends = np.cumsum([len(spans) for spans in block.spans], dtype=np.int64)
            borders.append(ends + self._vectors)
            places.append(np.concatenate(block.spans))
            self._vectors += int(ends[-1])
        self._documents += len(block.truncated)
        self.truncated += len(rows)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """How N documents were read: `truncated` (t,); `indptr` (N + 1,) and `spans` (P, 2), or None.

    The last two say where passages lie, and are None where documents are not split.
    """

    truncated: Int64
    indptr: Int64 | None
    spans: Int64 | None

    @classmethod
    def open(cls, folder: Path, documents: int) -> Reading | None:
        """Map the files of a folder, of so many documents; None if there is no folder.

        Raises:
            IndexMissingError: if a file is missing or damaged, or two do not fit together.
        """
        if not folder.is_dir():
            return None
        truncated = open_npy(folder / TRUNCATED_NAME, np.int64, ndim=1)
        inside = not len(truncated) or 0 <= truncated[0] <= truncated[-1] < documents
        if not (inside and _rises(truncated)):
            raise _damaged(folder / TRUNCATED_NAME, documents)
        if not (folder / INDPTR_NAME).exists():
            return cls(truncated, None, None)
        indptr = open_npy(folder / INDPTR_NAME, np.int64, ndim=1)
        spans = open_npy(folder / SPANS_NAME, np.int64, ndim=2)
        fits = len(indptr) == documents + 1 and indptr[0] == 0 and indptr[-1] == len(spans)
        if not (fits and _rises(indptr) and spans.shape[1] == 2):
            raise _damaged(folder / INDPTR_NAME, documents)
        return cls(truncated, indptr, spans)

    def count_truncated(self, live: Bool | None) -> int:
        """Return how many of the live documents, (N,), are truncated; all are live if None."""
        chosen = self.truncated if live is None else self.truncated[live[self.truncated]]
        return len(chosen)

    def count_passages(self, live: Bool | None) -> int | None:
        """Return how many passages the live documents have; None if they are not split."""
        if self.indptr is None:
            return None
        counts = np.diff(self.indptr)
        return int(counts.sum() if live is None else counts[live].sum())

    def rows_of(self, documents: Int64) -> Int64:
        """Return the vectors of some documents, in their order."""
        if self.indptr is None:
            return documents
        starts = self.indptr[documents]
        lengths = self.indptr[documents + 1] - starts
        ends = np.cumsum(lengths)
        shifts = np.repeat(starts - (ends - lengths), lengths)
        rows: Int64 = np.arange(len(shifts), dtype=np.int64) + shifts
        return rows

    def spans_of(self, documents: Int64) -> list[Int64] | None:
        """Return where the passages of some documents lie; None if they are not split."""
        if self.indptr is None or self.spans is None:
            return None
        pairs = zip(self.indptr[documents], self.indptr[documents + 1], strict=True)
        return [self.spans[start:end] for start, end in pairs]

    def passage(self, row: int) -> Passage | None:
        """Return which passage a vector is of; None if documents are not split."""
        if self.indptr is None or self.spans is None:
            return None
        document = int(np.searchsorted(self.indptr, row, side="right")) - 1
        start, end = self.spans[row].tolist()
        return Passage(row - int(self.indptr[document]) + 1, start, end)


def _rises(numbers: Int64) -> bool:
    return bool(np.all(np.diff(numbers) > 0))


def _damaged(path: Path, documents: int) -> IndexMissingError:
    return IndexMissingError(f"{path} does not fit {documents} documents; build the index again")
