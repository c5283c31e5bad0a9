"""A command in a terminal of its own: what is typed into it, and what it shows."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

_TESTS = Path(__file__).parent
_PATIENCE = 60
"""Seconds until a command that shows nothing more counts as hanging."""

WITH_FAKE_ENCODER = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from fakes import FakeEncoder
from dupmae.commands import options
from dupmae.heads import HeadSettings
FakeEncoder.heads = HeadSettings()
options.load_encoder = lambda *_: FakeEncoder()
from dupmae.cli import main
main()
"""
"""The command line with an encoder that is made of hashes."""


class Terminal:
    """A running command, seen from the keyboard and the screen."""

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process = process
        self._screen = screen
        self._shown = ""

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def wait_for(self, text: str) -> str:
        """Return what was shown since the last call, up to and with `text`."""
        end = time.monotonic() + _PATIENCE
        while text not in self._shown:
            assert time.monotonic() < end, f"{text!r} did not come; there is {self._shown!r}"
            if select.select([self._screen], [], [], 0.1)[0]:
                self._shown += os.read(self._screen, 65536).decode(errors="replace")
        before, _, self._shown = self._shown.partition(text)
        return before + text

    def interrupt(self) -> None:
        """Type ctrl-C, a moment after the last echo.

        Python's readline notices a signal only while it waits for a key: one that comes while it
        still shows the last one is noticed at the next key.
        """
        time.sleep(0.5)
        self.type("\x03")

    def leave(self) -> int:
        """Type ctrl-D and return the exit code."""
        self.type("\x04")
        return self.process.wait(_PATIENCE)


@contextmanager
def terminal(
    arguments: list[str], folder: Path, *, columns: int = 80, env: Mapping[str, str] = {}
) -> Iterator[Terminal]:
    """Run the command line, with the fake encoder, in a terminal of `columns` columns."""
    screen, keyboard = pty.openpty()
    ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {
        key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "COLUMNS"}
    }

    def take_over() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a suite in the background has it ignored
        ioctl(0, termios.TIOCSCTTY, 0)  # so that ctrl-C is a signal

    process = subprocess.Popen(
        [sys.executable, "-c", WITH_FAKE_ENCODER, str(_TESTS), *arguments],
        stdin=keyboard, stdout=keyboard, stderr=keyboard, cwd=folder,
        start_new_session=True, preexec_fn=take_over,
        env=inherited | {"TERM": "xterm", "XDG_STATE_HOME": str(folder / "state")} | dict(env),
    )  # fmt: skip
    os.close(keyboard)
    try:
        yield Terminal(process, screen)
    finally:
        process.kill()
        process.wait()
        os.close(screen)
