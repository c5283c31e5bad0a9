"""How the documents of a segment were read: `reading/` beside its vectors.

`truncated.npy` (t,) int64, rising, names the documents of which the encoder read only the
beginning. There is no such folder where nobody knows: with vectors made elsewhere, with an encoder
that cannot say, and in segments of format 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from dupmae.errors import IndexMissingError
from dupmae.indexes.npy import NpyWriter, open_npy
from dupmae.types import Bool, Int64

READING_NAME = "reading"
TRUNCATED_NAME = "truncated.npy"


class ReadingWriter:
    """Writes how documents were read, block by block, as `ForwardWriter` writes vectors.

    Args:
        folder: made if missing; nothing is written there unless it `is_known` how they were read.
        is_known: see above.
        keep: (documents, truncated ones) of an earlier writer in that folder to go on after.

    Raises:
        IndexMissingError: if the folder holds less than is to be kept.
    """

    def __init__(self, folder: Path, *, is_known: bool, keep: tuple[int, int] = (0, 0)) -> None:
        self._documents, self.truncated = keep
        self._writers: list[NpyWriter] = []
        if is_known:
            folder.mkdir(parents=True, exist_ok=True)
            self._writers.append(NpyWriter(folder / TRUNCATED_NAME, np.int64, keep=self.truncated))

    def add(self, truncated: Bool) -> None:
        """Append documents: which of them, (n,), are truncated."""
        rows = np.flatnonzero(truncated)
        for writer in self._writers:
            writer.append(rows + self._documents)
        self._documents += len(truncated)
        self.truncated += len(rows)

    def sync(self) -> None:
        """Make all documents so far safe on the disk, so that `keep` finds them again."""
        for writer in self._writers:
            writer.sync()

    def close(self) -> None:
        """Finish all files, safe on the disk."""
        for writer in self._writers:
            writer.close()

    def abandon(self) -> None:
        """Leave unfinished files as they are; nothing happens once closed."""
        for writer in self._writers:
            writer.abandon()

    def __enter__(self) -> ReadingWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.abandon()


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """How N documents were read; `truncated` (t,) rises."""

    truncated: Int64

    @classmethod
    def open(cls, folder: Path, documents: int) -> Reading | None:
        """Map the files of a folder, of so many documents; None if there is no folder.

        Raises:
            IndexMissingError: if a file is missing or damaged.
        """
        if not folder.is_dir():
            return None
        truncated = open_npy(folder / TRUNCATED_NAME, np.int64, ndim=1)
        rises = np.all(np.diff(truncated) > 0)
        if len(truncated) and not (rises and 0 <= truncated[0] <= truncated[-1] < documents):
            raise IndexMissingError(
                f"{folder / 'truncated.npy'} does not name some of {documents} documents; build "
                "the index again"
            )
        return cls(truncated)

    def count_truncated(self, live: Bool | None) -> int:
        """Return how many of the live documents, (N,), are truncated; all are live if None."""
        chosen = self.truncated if live is None else self.truncated[live[self.truncated]]
        return len(chosen)
