"""One writer at a time in an index folder, by a lock that the system drops when its holder dies."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dupmae.errors import WriterBusyError

LOCK_NAME = "WRITER.lock"


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the folder is made if need be, and goes again if left empty.

    A process that dies, however it does, loses the lock with its open files, so no lock is
    ever stale. The file says which process holds it, for the message only.

    Raises:
        WriterBusyError: if another writer, in this process or another, holds the lock.
    """
    path = folder / LOCK_NAME
    descriptor = _open_locked(path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        if list(folder.iterdir()) == [path]:
            with suppress(OSError):  # not on Windows, where an open file cannot be removed
                path.unlink()
                folder.rmdir()
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    """Return a descriptor that holds the lock on the file that is at `path` now."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the last holder has just removed the empty folder
            continue
        if not _try_lock(descriptor):
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise WriterBusyError(
                f"another writer (process {holder or 'unknown'}) is at work in {path.parent}; "
                "wait for it to end"
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)  # locked a file that its last holder had already removed: once more


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        """Lock one byte far behind the content, which other processes may then still read."""
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        """Lock the file as a whole, or return False if it is locked."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
