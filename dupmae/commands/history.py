"""The prompt's history: earlier queries for the arrow keys, in a file that only its owner reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click

from dupmae.errors import DataError
from dupmae.files import replacing

REMEMBERED = 1000
"""Lines of earlier prompts that are offered; a file with more than twice as many is cut to them."""

_OWNER_ONLY = 0o600


class History:
    """Lines typed at the prompt, now and before."""

    def __init__(self, path: Path | None) -> None:
        """Offer what `path` holds and add to it; with None nothing is read or kept.

        Raises:
            DataError: if the file is there but cannot be read.
        """
        self._path = path
        self._last = ""
        self._offer = _readline()
        for line in self._stored():
            self._offer(line)

    def add(self, line: str) -> None:
        """Take in a line, unless it was the last one too; a file that fails is left alone then."""
        if line == self._last:
            return
        self._last = line
        self._offer(line)
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _append(self._path, line)
        except OSError as error:
            click.echo(f"Warning: no history is kept: {self._path}: {error.strerror}", err=True)
            self._path = None

    def _stored(self) -> list[str]:
        if self._path is None:
            return []
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
            if len(lines) > 2 * REMEMBERED:
                _write(self._path, lines[-REMEMBERED:])
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DataError(
                f"cannot use the history {self._path}: {error.strerror}; --no-history does without"
            ) from error
        return lines[-REMEMBERED:]


def history_path() -> Path:
    """Return where the history lies: below XDG's folder for state."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    root = state if state.is_absolute() else Path.home() / ".local" / "state"
    return root / "dupmae" / "history"


def _readline() -> Callable[[str], None]:
    """Return what offers a line to the arrow keys."""
    try:
        import readline
    except ImportError:  # some builds of Python lack it; lines are then typed without its keys
        return lambda line: None
    readline.set_auto_history(False)
    return readline.add_history


def _append(path: Path, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _OWNER_ONLY)
    try:
        os.fchmod(descriptor, _OWNER_ONLY)
        os.write(descriptor, f"{line}\n".encode(errors="replace"))
    finally:
        os.close(descriptor)


def _write(path: Path, lines: list[str]) -> None:
    with replacing(path) as file:
        os.fchmod(file.fileno(), _OWNER_ONLY)
        file.write("".join(f"{line}\n" for line in lines).encode())
