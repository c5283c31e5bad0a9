"""From a collection's name to the collection, wherever it lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dupmae.errors import UsageError
from dupmae.eval.beir import Collection, cache_folder, find_collection, load_beir
from dupmae.eval.demo import demo_collection
from dupmae.eval.download import fetch_collection

DEMO = "demo"
"""The collection that is made on the spot from Python's own documentation."""


def open_collection(
    name: str, *, split: str | None = None, data_dirs: Sequence[Path] = ()
) -> Collection:
    """Return a collection by name: the demo, one on this machine, or else a download of BEIR's.

    Args:
        name: `demo`, or the name of a BEIR folder.
        split: which judgements; the default is `test`, `dev` for msmarco.
        data_dirs: folders to look in before `$DUPMAE_DATA` and the cache.

    Raises:
        DataError: if it can neither be found nor fetched, or a file of it is malformed.
        UsageError: if the demo is asked for another split than its own.
    """
    if name == DEMO:
        if split not in (None, "test"):
            raise UsageError(f"the demo collection has the split test only, not {split!r}")
        return demo_collection(cache_folder() / DEMO)
    folder = find_collection(name, data_dirs) or fetch_collection(name)
    return load_beir(folder, split, name=name)
