"""Ctrl-C amid an import is neither dropped nor does it keep the import system's locks."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from dupmae.commands.interrupts import careful_interrupts
from dupmae.types import ReadingEncoder

INTERRUPTED = """\
import signal
for _ in range({times}):
    signal.raise_signal(signal.SIGINT)
whole = True
"""


@pytest.fixture(autouse=True)
def usual_handlers() -> object:
    """Let ctrl-C be what it is in a terminal; see to it that nothing is left of a test's block.

    A suite that a shell runs in the background inherits that ctrl-C is ignored.
    """
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGALRM) is before[1]
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    signal.signal(signal.SIGINT, before[0])


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that does not exist yet."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"interrupted_{tmp_path.name}".replace("-", "_")
    yield name
    sys.modules.pop(name, None)


def write(folder: Path, name: str, content: str) -> None:
    (folder / f"{name}.py").write_text(content)
    importlib.invalidate_caches()


def is_interrupted(work: Callable[[], object]) -> bool:
    """Return whether what a user interrupts in this work ends it, or a minute of waiting after."""
    try:
        with careful_interrupts():
            work()
            time.sleep(60)
    except KeyboardInterrupt:
        return True
    return False


def test_an_import_ends_before_the_interrupt(tmp_path: Path, module: str) -> None:
    write(tmp_path, module, INTERRUPTED.format(times=1))
    assert is_interrupted(lambda: importlib.import_module(module))
    assert sys.modules[module].whole


def test_what_would_be_dropped_is_not(tmp_path: Path, module: str) -> None:
    """The callback of a lock that goes is where most were lost."""
    write(tmp_path, module, "")
    locks = [importlib._bootstrap._get_module_lock(module)]
    callback = importlib._bootstrap._module_locks[module].__callback__.__code__
    seen = []

    def interrupt(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code is callback and not seen:
            seen.append(event)
            signal.raise_signal(signal.SIGINT)

    def let_go() -> None:
        sys.setprofile(interrupt)
        locks.clear()
        sys.setprofile(None)

    assert is_interrupted(let_go)
    assert seen == ["call"]


def test_nor_is_it_where_a_protocol_is_checked() -> None:
    seen = []

    def interrupt(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_globals.get("__name__") == "typing" and not seen:
            seen.append(event)
            signal.raise_signal(signal.SIGINT)

    def check() -> None:
        sys.setprofile(interrupt)
        isinstance(None, ReadingEncoder)
        sys.setprofile(None)

    assert is_interrupted(check)
    assert seen == ["call"]


def test_the_second_ctrl_c_does_not_wait_for_the_import(tmp_path: Path, module: str) -> None:
    write(tmp_path, module, INTERRUPTED.format(times=2))
    assert is_interrupted(lambda: importlib.import_module(module))
    assert module not in sys.modules


def test_elsewhere_it_comes_at_once() -> None:
    went_on = []

    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        went_on.append(True)

    assert is_interrupted(work)
    assert is_interrupted(work)
    assert not went_on


def test_a_block_without_one_leaves_all_as_it_was() -> None:
    with careful_interrupts():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler


def test_ignored_interrupts_and_other_threads_are_left_alone() -> None:
    found = []

    def elsewhere() -> None:
        with careful_interrupts():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with careful_interrupts():
        found.append(signal.getsignal(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert found == [signal.default_int_handler, signal.SIG_IGN]
