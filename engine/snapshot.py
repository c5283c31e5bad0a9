"""One state of an index as a tar file, and back: the manifest first, then every file it names."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import IO

from dupmae.engine.journal import JOURNAL_NAME
from dupmae.engine.leftovers import refuse_other_files, remove_leftovers
from dupmae.engine.lock import writer_lock
from dupmae.engine.manifest import (
    MANIFEST_NAME,
    Manifest,
    manifest_content,
    manifest_of,
    read_state,
    write_manifest,
)
from dupmae.engine.stored_files import DELETES_NAME, SEGMENTS_NAME, damaged
from dupmae.errors import DataError, DupMAEError, UsageError
from dupmae.files import flush, replacing


def snapshot_index(folder: Path | str, path: Path | str) -> Manifest:
    """Write the state of an index to a tar file, whose checksums are looked at on the way.

    Writers may be at work meanwhile. Snapshots of one state are equal byte for byte.

    Returns:
        The manifest of the state.

    Raises:
        UsageError: if there is a file at `path`.
        IndexMissingError: if there is no index, or it is damaged.
        DupMAEError: if the disk is full or cannot be written.
    """
    folder, path = Path(folder), Path(path)
    if path.exists():
        raise UsageError(f"{path} is there already; remove it, or use another name")
    with ExitStack() as stack:

        def opens(manifest: Manifest) -> tuple[Manifest, list[IO[bytes]]]:
            files = [(folder / file.path).open("rb") for file in manifest.files]
            return manifest, [stack.enter_context(file) for file in files]

        manifest, streams = read_state(folder, opens)  # open files stay, whatever a writer removes
        try:
            with replacing(path) as out, tarfile.open(fileobj=out, mode="w") as tar:
                content = manifest_content(manifest)
                tar.addfile(_member(MANIFEST_NAME, len(content)), BytesIO(content))
                for file, stream in zip(manifest.files, streams, strict=True):
                    hashed = _Hashed(stream)
                    tar.addfile(_member(file.path, file.size), hashed)
                    if hashed.hexdigest() != file.sha256:
                        raise damaged(folder, f"the content of {file.path} has changed")
        except OSError as error:
            raise DupMAEError(f"{path} could not be written: {error}") from error
    return manifest


def restore_index(path: Path | str, folder: Path | str) -> Manifest:
    """Make an index of a snapshot; it appears when all of it is there and its checksums hold.

    Args:
        path: of the tar file.
        folder: absent, empty, or what a stopped writer has left where no index was.

    Raises:
        UsageError: if the folder holds an index or other files.
        DataError: if the file is missing, damaged, or no snapshot.
        IndexMissingError: if its manifest is damaged or of another format.
        DupMAEError: if the disk is full or cannot be written, or another writer is at work.
    """
    path, folder = Path(path), Path(folder)
    refuse_other_files(folder)
    if not path.is_file():
        raise DataError(f"no snapshot at {path}")
    try:
        with writer_lock(folder):
            if (folder / MANIFEST_NAME).exists():
                raise UsageError(f"{folder} holds an index; restore to a path where none is")
            (folder / JOURNAL_NAME).unlink(missing_ok=True)
            remove_leftovers(folder, None)
            try:
                manifest = _restored(path, folder)
                write_manifest(folder, manifest)
            except BaseException:  # ctrl-C too
                if not (folder / MANIFEST_NAME).exists():
                    remove_leftovers(folder, None)
                raise
            return manifest
    except OSError as error:
        raise DupMAEError(f"index {folder} could not be restored: {error}") from error


def _restored(path: Path, folder: Path) -> Manifest:
    """Write all files of a snapshot but the manifest, safe on the disk."""
    try:
        with tarfile.open(path, "r:") as tar:
            manifest = manifest_of(folder, _content(tar, MANIFEST_NAME).read())
            for file in manifest.files:
                place = folder / file.path
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("wb") as out:
                    hashed = _Hashed(_content(tar, file.path))
                    shutil.copyfileobj(hashed, out)
                if hashed.hexdigest() != file.sha256:
                    raise DataError(f"{path} is damaged: the content of {file.path} has changed")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} is damaged, or no snapshot of an index: {error}") from error
    for top in (folder / SEGMENTS_NAME, folder / DELETES_NAME):
        for written in (*top.rglob("*"), top):
            if written.exists():
                flush(written)
    flush(folder)
    return manifest


def _content(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """Return the content of the next member, which must be the file of that name."""
    member = tar.next()
    found = None if member is None or member.name != name else tar.extractfile(member)
    if found is None:
        raise tarfile.ReadError(f"expected {name}, found {member and member.name}")
    return found


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


class _Hashed:
    """Reads from a file and hashes what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._digest.update(content)
        return content

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
