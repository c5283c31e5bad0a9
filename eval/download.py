"""Fetching BEIR's own archives into the cache: resumed, checked, safely unpacked.

A download is kept as `NAME.zip.part` until its MD5 is the published one; it is then unpacked
beside its place and renamed, so that a folder in the cache is always a whole collection.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import shutil
import ssl
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import OpenerDirector, Request, build_opener

from tqdm import tqdm

from dupmae.errors import DataError
from dupmae.eval.beir import cache_folder

BASE_URL = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"

CHECKSUMS: Mapping[str, str] = {
    "arguana": "8ad3e3c2a5867cdced806d6503f29b99",
    "climate-fever": "8b66f0a9126c521bae2bde127b4dc99d",
    "cqadupstack": "4e41456d7df8ee7760a7f866133bda78",
    "dbpedia-entity": "c2a39eb420a3164af735795df012ac2c",
    "fever": "5a818580227bfb4b35bb6fa46d9b6c03",
    "fiqa": "17918ed23cd04fb15047f73e6c3bd9d9",
    "hotpotqa": "f412724f78b0d91183a0e86805e16114",
    "msmarco": "444067daf65d982533ea17ebd59501e4",
    "nfcorpus": "a89dba18a62ef92f7d323ec890a0d38d",
    "nq": "d4d3d2e48787a744b6f6e691ff534307",
    "quora": "18fb154900ba42a600f84b839c173167",
    "scidocs": "38121350fc3a4d2f48850f6aff52e4a9",
    "scifact": "5f7d1de60b170fc8027bb7898e2efca1",
    "trec-covid": "ce62140cb23feb9becf6270d0d1fe6d1",
    "webis-touche2020": "46f650ba5a527fc69e0a6521c5a23563",
}
"""MD5 of each public archive.

Source: https://github.com/beir-cellar/beir/wiki/Datasets-available and BEIR's README, whose tables
agree. `examples/dataset/md5.csv` there is older: it has the archives of fever and webis-touche2020
before they were replaced (for the latter see beir#74: this is its version 2).
"""

LICENSED: Mapping[str, str] = {
    "bioasq": "http://www.bioasq.org",
    "robust04": "https://trec.nist.gov/data/cd45/index.html",
    "signal1m": "https://research.signal-ai.com/datasets/signal1m.html",
    "trec-news": "https://trec.nist.gov/data/wapost/",
}
"""BEIR's collections without a public archive, and where their owners give licences."""

_CHUNK = 1 << 16
_TIMEOUT = 30.0  # seconds without a byte
_MAX_EXPANSION = 100  # BEIR's archives grow about threefold; a bomb grows a thousandfold


def fetch_collection(
    name: str,
    *,
    cache: Path | None = None,
    base_url: str = BASE_URL,
    checksums: Mapping[str, str] = CHECKSUMS,
    opener: OpenerDirector | None = None,
) -> Path:
    """Download a collection and return its folder in the cache.

    Args:
        name: such as `scifact`; a part such as `cqadupstack/android` brings all parts.
        cache: where to keep it; the default is `cache_folder()`.
        base_url: where `NAME.zip` lies; a mirror or a `file:` URL will do.
        checksums: the archives there and their MD5.
        opener: what opens URLs, for proxies and the like; the default obeys `$https_proxy`.

    Raises:
        DataError: if there is no such archive, it cannot be reached or it is not the published
            one. An interrupted download goes on where it was when called again.
    """
    cache = cache_folder() if cache is None else cache
    archive_name = name.partition("/")[0]
    if archive_name not in checksums:
        raise DataError(_unknown(name, cache, checksums))
    if (cache / archive_name).is_dir():
        return cache / name
    part = cache / f"{archive_name}.zip.part"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _download(f"{base_url}/{archive_name}.zip", part, opener or build_opener())
        _verify(part, checksums[archive_name])
        _unpack(part, cache / archive_name)
        part.unlink(missing_ok=True)
    except URLError as error:
        raise DataError(
            f"cannot fetch {base_url}/{archive_name}.zip: {error.reason}; {_by_hand(name, cache)}"
        ) from error
    except OSError as error:
        raise DataError(f"cannot keep {name} in {cache}: {error.strerror or error}") from error
    return cache / name


def _by_hand(name: str, cache: Path) -> str:
    return (
        f"put its folder at {cache / name}, or name the folder that holds it with --data "
        "or DUPMAE_DATA"
    )


def _unknown(name: str, cache: Path, checksums: Mapping[str, str]) -> str:
    if name in LICENSED:
        return (
            f"{name} needs a licence from its owners ({LICENSED[name]}) and has no public archive: "
            f"make its folder as github.com/beir-cellar/beir says in examples/dataset, then "
            f"{_by_hand(name, cache)}"
        )
    near = difflib.get_close_matches(name, checksums, n=1)
    guess = f" (did you mean {near[0]}?)" if near else ""
    return (
        f"no collection {name!r} was found, nor has BEIR a public archive of that name{guess}; "
        f"{_by_hand(name, cache)}"
    )


def _download(url: str, part: Path, opener: OpenerDirector) -> None:
    """Fetch all of a file, going on where `part` ends; a cut connection is taken up at once.

    Raises:
        URLError: if the address cannot be reached, or a try brought nothing new.
    """
    while True:
        start = part.stat().st_size if part.exists() else 0
        total = _receive(url, part, start, opener)
        size = part.stat().st_size
        if total is None or size >= total:
            return
        if size <= start:
            raise URLError(f"the connection was cut at {size:,} of {total:,} bytes; run it again")


def _receive(url: str, part: Path, start: int, opener: OpenerDirector) -> int | None:
    """Append what one connection brings, and return the file's full size if it is known."""
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = opener.open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and start:  # nothing lies beyond what is here; the MD5 will judge it
            return start
        raise
    except (HTTPException, TimeoutError, ConnectionError) as error:
        raise URLError(str(error)) from error
    with response:
        resumed = response.status == 206  # a server may send all of it in spite of Range
        size = response.headers.get("Content-Length")
        total = (start if resumed else 0) + int(size) if size else None
        with (
            part.open("ab" if resumed else "wb") as out,
            tqdm(
                desc=part.name.removesuffix(".part"),
                total=total,
                initial=start if resumed else 0,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            _copy(response, out, bar)
    return total


def _copy(response: Any, out: IO[bytes], bar: tqdm[Any]) -> None:
    """Copy until the end, or until the connection is cut: the size tells which."""
    try:
        while chunk := response.read(_CHUNK):
            out.write(chunk)
            bar.update(len(chunk))
    except (HTTPException, TimeoutError, ConnectionError, ssl.SSLError):
        return


def _verify(part: Path, expected: str) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with part.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        part.unlink()
        raise DataError(
            f"{part.name.removesuffix('.part')} has MD5 {digest.hexdigest()}, "
            f"the published one is {expected}; the copy was deleted, run it again"
        )


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the archive's folder of that name beside its place and rename it."""
    try:
        with (
            zipfile.ZipFile(archive) as contents,
            tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside,
        ):
            members = _safe_members(contents, archive, folder)
            for member in members:
                _extract(contents, member, Path(beside))
            if not folder.is_dir():  # else another process was quicker
                (Path(beside) / folder.name).replace(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}; delete it") from error


def _safe_members(contents: zipfile.ZipFile, archive: Path, folder: Path) -> list[zipfile.ZipInfo]:
    """Return the files below the collection's folder; refuse an archive that would do harm."""
    files = [member for member in contents.infolist() if not member.is_dir()]
    for member in files:
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts or set(member.filename) & set("\\:\0"):
            raise DataError(f"{archive} holds the unsafe path {member.filename!r}; delete it")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(f"{archive} holds the link {member.filename!r}; delete it")
    wanted = [member for member in files if PurePosixPath(member.filename).parts[0] == folder.name]
    if not wanted:
        raise DataError(f"{archive} holds no folder {folder.name}; delete it")
    size, packed = sum(member.file_size for member in wanted), archive.stat().st_size
    if size > packed * _MAX_EXPANSION:
        raise DataError(
            f"{archive} would grow from {packed:,} to {size:,} bytes, which no collection does; "
            "delete it"
        )
    free = shutil.disk_usage(folder.parent).free
    if size > free:
        raise DataError(
            f"{folder.name} needs {size:,} bytes, {folder.parent} has {free:,} left; free some "
            "space or set DUPMAE_CACHE to a larger disk"
        )
    return wanted


def _extract(contents: zipfile.ZipFile, member: zipfile.ZipInfo, root: Path) -> None:
    target = root.joinpath(*PurePosixPath(member.filename).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with contents.open(member) as packed, target.open("wb") as out:
        shutil.copyfileobj(packed, out, _CHUNK)
        out.flush()
        os.fsync(out.fileno())
