"""From a collection's name to the collection, wherever it lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from dupmae.errors import UsageError
from dupmae.eval.beir import Collection, cache_folder, find_collection, load_beir
from dupmae.eval.demo import demo_collection
from dupmae.eval.download import fetch_collection
from dupmae.eval.irds import PREFIX, irds_collection

DEMO = "demo"
"""The collection that is made on the spot from Python's own documentation."""

PARTED = "cqadupstack"
"""The collection of BEIR that is made of parts."""


def open_collection(
    name: str, *, split: str | None = None, data_dirs: Sequence[Path] = ()
) -> Collection:
    """Return a collection by name: the demo, one on this machine, or else a download of BEIR's.

    Args:
        name: `demo`, the name of a BEIR folder, the path of a folder in that layout, or `irds:` and
            an id of ir_datasets.
        split: which judgements; the default is `test`, `dev` for msmarco.
        data_dirs: folders to look in before `$DUPMAE_DATA` and the cache.

    Raises:
        DataError: if it can neither be found nor fetched, or a file of it is malformed.
        UsageError: if the demo is asked for another split than its own, or an id of ir_datasets
            for any.
    """
    if name.startswith(PREFIX):
        dataset_id = name.removeprefix(PREFIX)
        if split is not None:
            raise UsageError(
                f"the id {dataset_id} names its split, so --split {split} says nothing"
            )
        return irds_collection(dataset_id, cache_folder().parent / "irds")
    if name == DEMO:
        if split not in (None, "test"):
            raise UsageError(f"the demo collection has the split test only, not {split!r}")
        return demo_collection(cache_folder() / DEMO)
    folder = find_collection(name, data_dirs) or fetch_collection(name)
    return load_beir(folder, split, name=name if is_name(name) else None)


def parts_of(name: str, data_dirs: Sequence[Path] = ()) -> list[str]:
    """Return the collections that a name stands for: itself, but for `cqadupstack` its parts.

    Published figures of cqadupstack are the mean over its twelve parts.

    Raises:
        DataError: if cqadupstack has to be fetched and cannot be.
    """
    if name != PARTED:
        return [name]
    folder = find_collection(name, data_dirs) or fetch_collection(name)
    parts = sorted(path.parent.name for path in folder.glob("*/qrels"))
    return [f"{name}/{part}" for part in parts] or [name]


def is_name(name: str) -> bool:
    """Say whether this names a collection, and not the path of a folder."""
    return PurePath(name).parent in (PurePath(), PurePath(PARTED))
