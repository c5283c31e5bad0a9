"""What no manifest names: files of former states, of killed writers, and of other programs.

Only a writer, who holds the lock, removes the first two; and names are never used twice, so that a
reader who still opens a former state finds its files or none.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from dupmae.engine.journal import Journal
from dupmae.engine.lock import LOCK_NAME
from dupmae.engine.manifest import MANIFEST_NAME, Manifest, segment_name
from dupmae.engine.stored_files import DELETES_NAME, ENCODED_NAME, SEGMENTS_NAME
from dupmae.errors import UsageError


def refuse_other_files(folder: Path) -> None:
    """Raise UsageError if the folder holds something that no writer has put there."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; give an index folder, or a path where none is")
    names = {path.name for path in folder.iterdir()}
    if names and not names & {MANIFEST_NAME, LOCK_NAME}:
        raise UsageError(
            f"{folder} is no index but holds {min(names)!r}; give an index folder, an empty one, "
            "or a path where none is"
        )


def next_segment(folder: Path, manifest: Manifest | None) -> str:
    """Return a name that no segment has, nor had in any state."""
    generation = 0 if manifest is None else manifest.generation
    return segment_name(max([generation, *_numbers(folder)]) + 1)


def remove_leftovers(folder: Path, manifest: Manifest | None) -> None:
    """Remove what neither the state nor the journal of an unfinished build names.

    What a reader still holds open, on Windows, stays for now.

    Args:
        folder: whose lock the caller holds.
        manifest: the state; None if there is none.
    """
    segments = () if manifest is None else manifest.segments
    named = {segment.name for segment in segments}
    deletes = {segment.deletes.path for segment in segments if segment.deletes}
    journal = Journal.read(folder)
    if journal is not None and journal.plan.segment in named:  # it was to be removed next
        with suppress(OSError):
            journal.remove()
    elif journal is not None:
        named.add(journal.plan.segment)
    others = [name for name in map(segment_name, _numbers(folder)) if name not in named]
    encoded = [f"{segment.name}/{ENCODED_NAME}" for segment in segments]
    for name in (*others, *encoded):
        shutil.rmtree(folder / SEGMENTS_NAME / name, ignore_errors=True)
    beside = [path for path in folder.glob(".*.part") if path.is_file()]
    for path in [*(folder / DELETES_NAME).glob("*"), *beside]:
        if path.relative_to(folder).as_posix() not in deletes:
            with suppress(OSError):
                path.unlink()
    for name in (SEGMENTS_NAME, DELETES_NAME):
        with suppress(OSError):  # it is not there, or not empty
            (folder / name).rmdir()


def _numbers(folder: Path) -> list[int]:
    """Return the numbers of the segments that are there, whole or not."""
    names = [path.name for path in (folder / SEGMENTS_NAME).glob("*")]
    numbers = [int(name) for name in names if name.isascii() and name.isdigit()]
    return [number for number in numbers if segment_name(number) in names]
