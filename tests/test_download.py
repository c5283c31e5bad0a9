"""Facts about fetching collections, against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import stat
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dupmae.errors import DataError
from dupmae.eval.beir import load_beir
from dupmae.eval.catalogue import open_collection
from dupmae.eval.download import CHECKSUMS, LICENSED, fetch_collection

# Ids that do not compress, so that the archive has some length.
IDS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(1000)]
FILES = {
    "small/corpus.jsonl": "".join(f'{{"_id": "{name}", "text": "a"}}\n' for name in IDS),
    "small/queries.jsonl": '{"_id": "q1", "text": "red fox"}\n',
    "small/qrels/test.tsv": f"query-id\tcorpus-id\tscore\nq1\t{IDS[0]}\t1\n",
    "__MACOSX/small/._corpus.jsonl": "left by a Mac",
}


def zipped(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


@dataclass
class Mirror:
    """A server of one archive, which may misbehave, and what it was asked."""

    url: str = ""
    archive: bytes = b""
    cuts: list[int] = field(default_factory=list)  # how many bytes to send before hanging up
    knows_range: bool = True
    ranges: list[str | None] = field(default_factory=list)


def answer(handler: BaseHTTPRequestHandler, mirror: Mirror) -> None:
    asked = handler.headers.get("Range")
    mirror.ranges.append(asked)
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    start = start if mirror.knows_range else 0
    if not handler.path.endswith("/small.zip"):
        handler.send_error(404)
        return
    if start and start >= len(mirror.archive):
        handler.send_error(416)
        return
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(mirror.archive) - start))
    handler.end_headers()
    length = mirror.cuts.pop(0) if mirror.cuts else len(mirror.archive)
    handler.wfile.write(mirror.archive[start : start + length])


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror(archive=zipped(FILES))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, mirror)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    mirror.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield mirror
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def fetch(mirror: Mirror, cache: Path, md5: str | None = None) -> Path:
    md5 = md5 or hashlib.md5(mirror.archive).hexdigest()
    return fetch_collection("small", cache=cache, base_url=mirror.url, checksums={"small": md5})


def test_a_collection_is_fetched_checked_and_unpacked(mirror: Mirror, tmp_path: Path) -> None:
    folder = fetch(mirror, tmp_path / "cache")
    assert folder == tmp_path / "cache" / "small"
    assert load_beir(folder).qrels == {"q1": {IDS[0]: 1}}
    assert (folder / "corpus.jsonl").read_text() == FILES["small/corpus.jsonl"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["small"]


def test_what_is_there_is_not_fetched_again(mirror: Mirror, tmp_path: Path) -> None:
    fetch(mirror, tmp_path)
    fetch(mirror, tmp_path)
    assert len(mirror.ranges) == 1


def test_an_archive_may_come_from_a_folder(tmp_path: Path) -> None:
    archive = zipped(FILES)
    (tmp_path / "small.zip").write_bytes(archive)
    folder = fetch_collection(
        "small",
        cache=tmp_path / "cache",
        base_url=tmp_path.as_uri(),
        checksums={"small": hashlib.md5(archive).hexdigest()},
    )
    assert load_beir(folder).queries == {"q1": "red fox"}


def test_a_cut_connection_is_taken_up_where_it_broke(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cuts = [10_000, 5_000]
    folder = fetch(mirror, tmp_path)
    assert mirror.ranges == [None, "bytes=10000-", "bytes=15000-"]
    assert load_beir(folder).name == "small"


def test_a_dead_connection_is_an_error_and_the_next_call_goes_on(
    mirror: Mirror, tmp_path: Path
) -> None:
    mirror.cuts = [10_000, 0]
    with pytest.raises(DataError, match=r"cut at 10,000 of \d\d,\d\d\d bytes; run it again"):
        fetch(mirror, tmp_path)
    assert (tmp_path / "small.zip.part").stat().st_size == 10_000
    fetch(mirror, tmp_path)
    assert mirror.ranges[-1] == "bytes=10000-"


def test_a_server_that_ignores_ranges_is_read_from_the_start(
    mirror: Mirror, tmp_path: Path
) -> None:
    (tmp_path / "small.zip.part").write_bytes(mirror.archive[:5000])
    mirror.knows_range = False
    assert load_beir(fetch(mirror, tmp_path)).name == "small"


def test_a_complete_part_is_only_checked(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "small.zip.part").write_bytes(mirror.archive)
    assert load_beir(fetch(mirror, tmp_path)).name == "small"
    assert mirror.ranges == [f"bytes={len(mirror.archive)}-"]


def test_another_archive_than_the_published_one_is_refused_and_deleted(
    mirror: Mirror, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"has MD5 .*, the published one is {'0' * 32}"):
        fetch(mirror, tmp_path, md5="0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_server_says_where_to_put_the_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot fetch http\S+/scifact\.zip: .*refused.* put") as e:
        fetch_collection("scifact", cache=tmp_path, base_url="http://127.0.0.1:9")
    assert f"{tmp_path / 'scifact'}, or name the folder that holds it with --data" in str(e.value)
    assert "\n" not in str(e.value)


def test_a_missing_archive_is_an_error(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"scifact\.zip: Not Found; put its folder"):
        fetch_collection("scifact", cache=tmp_path, base_url=mirror.url)


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot keep scifact in .*: "):
        fetch_collection("scifact", cache=tmp_path / "file", base_url="http://127.0.0.1:9")


def test_an_unknown_name_gets_the_nearest_known_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUPMAE_CACHE", str(tmp_path))
    with pytest.raises(
        DataError, match=r"no collection 'scifakt' .*did you mean scifact\?.*--data"
    ):
        open_collection("scifakt")


@pytest.mark.parametrize("name", LICENSED)
def test_a_licensed_collection_says_how_to_get_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} needs a licence .*http.*DUPMAE_DATA") as error:
        fetch_collection(name, cache=tmp_path)
    assert "\n" not in str(error.value)


def test_all_eighteen_collections_of_beir_are_known() -> None:
    # MS MARCO is the nineteenth row of BEIR's table: training data for the others, judged on dev.
    assert len(CHECKSUMS.keys() | LICENSED.keys()) == 19
    assert all(len(md5) == 32 and int(md5, 16) for md5 in CHECKSUMS.values())


def link(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (zipped({**FILES, "small/../../evil": "x"}), "unsafe path 'small/../../evil'"),
        (zipped({**FILES, "/evil": "x"}), "unsafe path '/evil'"),
        (zipped({**FILES, "small/..\\evil": "x"}), "unsafe path"),
        (zipped({**FILES, "C:evil": "x"}), "unsafe path 'C:evil'"),
        (link("small/corpus.jsonl"), "the link 'small/corpus.jsonl'"),
        (zipped({"other/corpus.jsonl": "x"}), "holds no folder small"),
        (zipped({"small/corpus.jsonl": "0" * 10_000_000}), "would grow from .* to 10,000,000"),
        (b"not a zip", "cannot be unpacked"),
        (zipped(FILES)[:-10], "cannot be unpacked"),
    ],
)
def test_a_harmful_or_broken_archive_leaves_nothing_behind(
    mirror: Mirror, tmp_path: Path, archive: bytes, message: str
) -> None:
    mirror.archive = archive
    with pytest.raises(DataError, match=message):
        fetch(mirror, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["small.zip.part"]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_disk_without_room_is_told_before_unpacking(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(DataError, match=r"small needs [\d,]+ bytes, .* has 100 left"):
        fetch(mirror, tmp_path)
