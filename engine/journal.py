"""JOURNAL.jsonl: which blocks of an unfinished build are safe on the disk.

    {"segment": "000002", "encoder_seal": "3f2a…", "dense_dim": 384, …, "block_size": 512}
    {"documents": 512, "vectors": 512, "nonzeros": 61044, "truncated": 31, "corpus_hash": "91bc…"}
    {"documents": 1024, "vectors": 1024, "nonzeros": 120733, "truncated": 58, …}

The first line says what is being built: vectors of a block depend on all of it. Each other line
is written once a block's vectors are on the disk, and counts from the start of the corpus. The
file goes when the manifest names the segment; as long as it stands, the next build of the same
goes on after the last block whose documents have not changed.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dupmae.engine.borrow import Borrow
from dupmae.engine.chunking import Chunk
from dupmae.errors import UsageError
from dupmae.files import flush, replacing

JOURNAL_NAME = "JOURNAL.jsonl"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is being built; the blocks of equal plans on equal documents are equal."""

    segment: str
    encoder_name: str
    encoder_seal: str
    dense_dim: int
    vocabulary_size: int
    block_size: int
    reading: bool
    """Whether the encoder says which documents it reads only the beginning of."""
    chunk: Chunk | None
    """How documents are split; None if they are not."""
    borrow: Borrow | None = None
    """How documents borrow terms; None if they do not."""

    def same_vectors(self, other: Plan) -> bool:
        """Return whether the blocks of one build can be used in the other."""
        ignored = {"segment": "", "encoder_name": ""}
        return asdict(self) | ignored == asdict(other) | ignored


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a build has come, counted from its start."""

    documents: int
    vectors: int
    nonzeros: int
    truncated: int
    corpus_hash: str


START = Checkpoint(0, 0, 0, 0, "")


class Journal:
    """The journal of one build, which holds the folder's lock."""

    def __init__(self, path: Path, plan: Plan, blocks: list[Checkpoint]) -> None:
        self.plan = plan
        self.blocks = blocks
        self._path = path

    @classmethod
    def begin(cls, folder: Path, plan: Plan) -> Journal:
        """Write a journal without blocks; it takes the place of any other."""
        journal = cls(folder / JOURNAL_NAME, plan, [])
        journal.cut(0)
        return journal

    @classmethod
    def read(cls, folder: Path) -> Journal | None:
        """Read the journal of a folder; None if there is none, or none that can be used.

        A last line that is cut short was being written when the machine went down.
        """
        path = folder / JOURNAL_NAME
        try:
            first, *others = path.read_bytes().split(b"\n")[:-1]
            plan = json.loads(first)
            chunk = plan["chunk"] and Chunk(**plan["chunk"])
            borrow = plan.get("borrow") and Borrow(**plan["borrow"])
            return cls(
                path,
                Plan(**{**plan, "chunk": chunk, "borrow": borrow}),
                [Checkpoint(**json.loads(line)) for line in others],
            )
        except (OSError, ValueError, TypeError, KeyError, UsageError):
            return None

    @property
    def done(self) -> Checkpoint:
        """How far the last block goes."""
        return self.blocks[-1] if self.blocks else START

    def append(self, checkpoint: Checkpoint) -> None:
        """Note, safe on the disk, that a block is."""
        with self._path.open("ab") as file:
            file.write(_line(checkpoint))
            file.flush()
            os.fsync(file.fileno())
        self.blocks.append(checkpoint)

    def cut(self, blocks: int) -> None:
        """Forget all but the first blocks."""
        del self.blocks[blocks:]
        with replacing(self._path) as file:
            file.writelines([_line(self.plan), *map(_line, self.blocks)])

    def remove(self) -> None:
        """Remove the file, before what it is about is removed."""
        self._path.unlink(missing_ok=True)
        flush(self._path.parent)


def _line(record: Any) -> bytes:
    return json.dumps(asdict(record)).encode() + b"\n"
