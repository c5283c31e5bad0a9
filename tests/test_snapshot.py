from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest
from fakes import FakeEncoder

from dupmae.engine import (
    SearchEngine,
    build_index,
    delete_documents,
    read_manifest,
    restore_index,
    snapshot_index,
    verify_index,
)
from dupmae.engine.manifest import read_state
from dupmae.errors import DataError, DupMAEError, IndexMissingError, UsageError
from dupmae.types import Document

DOCUMENTS = [Document(f"d{n}", f"whale {'ship ' * (n % 5)}", "t", {"n": n}) for n in range(30)]


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("snapshot")
    build_index(DOCUMENTS[:20], FakeEncoder(), place / "my.index")
    build_index(DOCUMENTS[18:24], FakeEncoder(), place / "my.index")
    delete_documents(place / "my.index", ["d1"])
    snapshot_index(place / "my.index", place / "my.tar")
    return place


@pytest.fixture
def place(built_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(built_once, tmp_path / "place")
    return tmp_path / "place"


def answer(folder: Path):
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        hits = engine.search("ship whale", 100, feedback=0.3)
        return hits, engine.documents.get(range(len(engine)))


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "WRITER.lock"
    }


@pytest.mark.parametrize("there", [False, True])
def test_a_restored_index_is_the_same_byte_for_byte(place: Path, there: bool) -> None:
    if there:
        (place / "again").mkdir()
    assert restore_index(place / "my.tar", place / "again") == read_manifest(place / "my.index")
    assert content(place / "again") == content(place / "my.index")
    assert answer(place / "again") == answer(place / "my.index")
    assert verify_index(place / "again", deep=True) == []
    build_index(DOCUMENTS[24:], FakeEncoder(), place / "again")
    assert len(answer(place / "again")[1]) == 29


def test_snapshots_of_one_state_are_equal_and_hold_the_manifest_first(place: Path) -> None:
    snapshot_index(place / "my.index", place / "two.tar")
    assert (place / "two.tar").read_bytes() == (place / "my.tar").read_bytes()
    with tarfile.open(place / "my.tar") as tar:
        names = tar.getnames()
    assert names == ["MANIFEST.json", *(f.path for f in read_manifest(place / "my.index").files)]


def test_a_writer_does_not_disturb_a_snapshot(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = answer(place / "my.index")

    def opened_then_replaced(folder, opens):
        state = read_state(folder, opens)
        build_index(DOCUMENTS[:3], FakeEncoder(), folder, replace=True)
        return state

    monkeypatch.setattr("dupmae.engine.snapshot.read_state", opened_then_replaced)
    snapshot_index(place / "my.index", place / "two.tar")
    restore_index(place / "two.tar", place / "again")
    assert answer(place / "again") == before


def test_a_damaged_index_makes_no_snapshot(place: Path) -> None:
    path = place / "my.index" / read_manifest(place / "my.index").files[3].path
    flipped = bytearray(path.read_bytes())
    flipped[-1] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(IndexMissingError, match=rf"content of .*{path.name} has changed"):
        snapshot_index(place / "my.index", place / "two.tar")
    assert sorted(p.name for p in place.iterdir()) == ["my.index", "my.tar"]


def test_a_snapshot_replaces_no_file_and_a_restored_index_no_index(place: Path) -> None:
    with pytest.raises(UsageError, match=r"my\.tar is there already"):
        snapshot_index(place / "my.index", place / "my.tar")
    with pytest.raises(UsageError, match=r"my\.index holds an index"):
        restore_index(place / "my.tar", place / "my.index")
    (place / "other").mkdir()
    (place / "other" / "thesis.txt").touch()
    with pytest.raises(UsageError, match=r"holds 'thesis\.txt'"):
        restore_index(place / "my.tar", place / "other")
    with pytest.raises(DataError, match="no snapshot at"):
        restore_index(place / "absent.tar", place / "again")


def test_a_stopped_first_build_gives_way_to_a_snapshot(place: Path) -> None:
    def failing():
        yield from DOCUMENTS[:10]
        raise DataError("line 11")

    with pytest.raises(DataError, match="line 11"):
        build_index(failing(), FakeEncoder(), place / "again", block_size=4)
    assert (place / "again" / "segments" / "000001").exists()
    restore_index(place / "my.tar", place / "again")
    assert content(place / "again") == content(place / "my.index")


def test_every_cut_or_flipped_snapshot_is_refused_and_leaves_nothing(place: Path) -> None:
    whole = (place / "my.tar").read_bytes()
    with tarfile.open(place / "my.tar") as tar:
        members = tar.getmembers()
    places = [member.offset_data + member.size // 2 for member in members[::4]]
    damages = [whole[:place] for place in (0, 100, *places)]
    damages += [whole[:p] + bytes([whole[p] ^ 2]) + whole[p + 1 :] for p in (5, *places)]
    for damage in damages:
        (place / "bad.tar").write_bytes(damage)
        with pytest.raises(DupMAEError, match="damaged") as caught:
            restore_index(place / "bad.tar", place / "again")
        assert "\n" not in str(caught.value)
        assert not (place / "again").exists()


def test_a_member_that_would_lie_elsewhere_is_refused(place: Path) -> None:
    with tarfile.open(place / "bad.tar", "w") as tar:
        manifest = (place / "my.index" / "MANIFEST.json").read_bytes()
        for name, data in (("MANIFEST.json", manifest), ("../evil", b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(DataError, match=r"expected segments/.*, found \.\./evil"):
        restore_index(place / "bad.tar", place / "again")
    assert not (place / "evil").exists()
