"""The indexes that are served, each kept at its newest generation."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dupmae.engine import SearchEngine
from dupmae.engine.manifest import MANIFEST_NAME
from dupmae.errors import DupMAEError, UsageError

WATCH_SECONDS = 0.5
"""How long after another process has written until answers are of the new generation."""

logger = logging.getLogger(__name__)


class ServedIndex:
    """An open index under a name."""

    def __init__(self, name: str, folder: Path, engine: SearchEngine) -> None:
        self.name = name
        self.folder = folder
        self._engine = engine
        self._reloading = threading.Lock()
        self._seen = _stamp(folder)

    def pinned(self) -> SearchEngine:
        """Return the engine on the present generation, which it keeps whoever reloads."""
        return self._engine.pinned()

    def refresh(self) -> None:
        """Take up a newer generation if the manifest is another one than before.

        Raises:
            DupMAEError: if it cannot be opened; the present generation then stays, and nothing is
                tried again until the manifest changes.
        """
        with self._reloading:
            stamp = _stamp(self.folder)
            if stamp == self._seen:
                return
            self._seen = stamp  # taken before the state is read: what comes later is seen later
            if self._engine.reload():
                _ = self._engine.view.corpus  # counted here, not by the first search
                gc.collect()  # a view refers to itself: its files would stay open for long
                logger.info("%s: generation %d", self.name, self._engine.manifest.generation)

    def close(self) -> None:
        """Close its files."""
        self._engine.close()


class Watcher:
    """A thread that refreshes indexes when their manifests change."""

    def __init__(self, indexes: Sequence[ServedIndex], seconds: float = WATCH_SECONDS) -> None:
        self._indexes = indexes
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="dupmae-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds):
            for index in self._indexes:
                try:
                    index.refresh()
                except DupMAEError as error:
                    logger.warning("%s stays as it was: %s", index.name, error)


def parse_folders(given: Sequence[str]) -> dict[str, Path]:
    """Read FOLDER or NAME=FOLDER; a folder without a name is called as it is, without `.index`.

    Raises:
        UsageError: if a name is empty or repeats.
    """
    folders: dict[str, Path] = {}
    for item in given:
        name, found, folder = item.partition("=")
        if not found:
            name, folder = Path(item).resolve().name.removesuffix(".index"), item
        if not name or not folder:
            raise UsageError(f"--index takes FOLDER or NAME=FOLDER, found {item!r}")
        if name in folders:
            raise UsageError(f"two indexes are called {name}; name one of them: NAME=FOLDER")
        folders[name] = Path(folder)
    return folders


def open_indexes(
    folders: Mapping[str, Path], open_engine: Callable[[Path], SearchEngine]
) -> list[ServedIndex]:
    """Open indexes by name, all or none."""
    opened: list[ServedIndex] = []
    try:
        for name, folder in folders.items():
            opened.append(ServedIndex(name, folder, open_engine(folder)))
    except BaseException:
        for index in opened:
            index.close()
        raise
    return opened


def _stamp(folder: Path) -> tuple[int, int, int] | None:
    """Return what changes whenever the manifest is replaced; None if there is none."""
    try:
        found = (folder / MANIFEST_NAME).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
