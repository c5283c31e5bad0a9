from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from killed import exit_code, hold_lock

from dupmae.engine.canaries import Canaries, Canary
from dupmae.engine.chunking import Chunk
from dupmae.engine.lock import writer_lock
from dupmae.engine.manifest import (
    FORMAT_VERSION,
    Manifest,
    SegmentRecord,
    manifest_of,
    read_manifest,
    read_state,
    write_manifest,
)
from dupmae.engine.stored_files import StoredFile, check_content, describe_file
from dupmae.errors import DupMAEError, IndexMissingError

SEGMENT = SegmentRecord("000003", 5, 2, "cd34", (), StoredFile("deletes/d.npy", 2, ""))
CANARY = {"text": "a", "dense": "AACAPw==", "terms": "BwAAAA==", "weights": "AAAAQA=="}
BASE = Manifest(
    generation=4,
    created="2025-01-01T00:00:00+00:00",
    encoder_name="fake",
    encoder_seal="ab12",
    dense_dim=8,
    vocabulary_size=1000,
    segments=(SEGMENT, replace(SEGMENT, name="000004", documents=7, deleted=0, deletes=None)),
    canaries=Canaries("fast chips", (Canary(**CANARY),)),
)
KEYS_OF_3 = ("name", "documents", "deleted", "corpus_hash", "files", "deletes")
DENSE = "segments/000003/forward/dense"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Make an index folder whose two segments hold a small file each."""
    contents = {DENSE: b"12345", "segments/000004/empty": b"", "deletes/d.npy": b"de"}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    one, two, deletes = (describe_file(tmp_path, tmp_path / name) for name in contents)
    first, second = BASE.segments
    segments = (replace(first, files=(one,), deletes=deletes), replace(second, files=(two,)))
    write_manifest(tmp_path, replace(BASE, segments=segments))
    return tmp_path


def change(index: Path, **values: Any) -> None:
    path = index / "MANIFEST.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_manifest_is_read_as_it_was_written(index: Path) -> None:
    manifest = read_manifest(index)
    assert [(file.path, file.size) for file in manifest.files] == [
        (DENSE, 5),
        ("segments/000004/empty", 0),
        ("deletes/d.npy", 2),
    ]
    stripped = [replace(segment, files=()) for segment in manifest.segments]
    stripped[0] = replace(stripped[0], deletes=SEGMENT.deletes)
    assert replace(manifest, segments=tuple(stripped)) == BASE
    for file in manifest.files:
        check_content(index, file)


def test_documents_are_those_of_all_segments_without_the_deleted(index: Path) -> None:
    assert read_manifest(index).documents == 3 + 7


def test_the_corpus_is_known_while_one_segment_is_whole() -> None:
    first, second = BASE.segments
    assert replace(BASE, segments=(second,)).corpus_hash == "cd34"
    assert [replace(BASE, segments=s).corpus_hash for s in ((), (first,), (first, second))] == [
        "",
        "",
        "",
    ]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../a", "segments/../../a", "MANIFEST.json"])
def test_a_file_lies_below_segments_or_deletes(path: str) -> None:
    with pytest.raises(ValueError, match="no file of an index"):
        StoredFile(path, 0, "")


@pytest.mark.parametrize("deleted", [-1, 5, 6])
def test_a_segment_has_a_live_document(deleted: int) -> None:
    with pytest.raises(ValueError, match=f"has {deleted} of 5 deleted"):
        replace(SEGMENT, deleted=deleted)


def test_writing_leaves_nothing_beside_the_manifest(index: Path) -> None:
    write_manifest(index, replace(read_manifest(index), generation=5))
    assert read_manifest(index).generation == 5
    assert sorted(path.name for path in index.iterdir()) == ["MANIFEST.json", "deletes", "segments"]


def test_a_write_that_fails_leaves_the_old_manifest(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_manifest(index, replace(BASE, generation=5))
    assert read_manifest(index).generation == 4


@pytest.mark.parametrize("name", [".", "absent", "file"])
def test_where_no_index_is_the_error_says_how_to_make_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(IndexMissingError, match=r"no index at .*; make one with `dupmae index"):
        read_manifest(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"format_version": 3}',
        '{"format_version": "3"}',
        "\x00",
        "[" * 99999,
    ],
)
def test_a_manifest_that_is_none_is_damaged(index: Path, text: str) -> None:
    (index / "MANIFEST.json").write_text(text)
    with pytest.raises(
        IndexMissingError, match=r"damaged: MANIFEST.json is not a manifest"
    ) as caught:
        read_manifest(index)
    assert "--replace" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [{"generation": "3"}, {"segments": None}, {"segments": [{}]}, {"segments": 3}, {"created": 1}],
)
def test_a_field_of_another_type_is_damage(index: Path, values: dict[str, Any]) -> None:
    change(index, **values)
    with pytest.raises(IndexMissingError, match="damaged"):
        read_manifest(index)


def test_every_changed_byte_of_a_manifest_is_found(index: Path) -> None:
    content = (index / "MANIFEST.json").read_bytes()
    assert manifest_of(index, content) == read_manifest(index)
    for place in range(len(content)):
        for bit in (1, 8, 32):
            flipped = bytearray(content)
            flipped[place] ^= bit
            with pytest.raises(IndexMissingError):
                manifest_of(index, bytes(flipped))


def test_bytes_that_are_no_text_are_damage(index: Path) -> None:
    (index / "MANIFEST.json").write_bytes(b"\xff\xfe")
    with pytest.raises(IndexMissingError, match=r"MANIFEST\.json is not a manifest"):
        read_manifest(index)


def test_a_manifest_that_may_not_be_read_is_not_called_damaged(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(IndexMissingError, match=r"no right to read MANIFEST\.json; ask its owner"):
        read_manifest(index)


def test_a_newer_format_is_named_and_not_called_damaged(index: Path) -> None:
    change(index, format_version=FORMAT_VERSION + 1, unknown="field")
    with pytest.raises(IndexMissingError, match=rf"has format {FORMAT_VERSION + 1}.*update dupmae"):
        read_manifest(index)


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_format_is_named_with_its_cure(index: Path, version: int) -> None:
    change(index, format_version=version)
    with pytest.raises(
        IndexMissingError,
        match=rf"has format {version}, .* reads formats 3 and 4; rebuild it with .*--re",
    ):
        read_manifest(index)


@pytest.mark.parametrize("name", [DENSE, "deletes/d.npy"])
def test_a_missing_file_is_named(index: Path, name: str) -> None:
    (index / name).unlink()
    with pytest.raises(IndexMissingError, match=f"damaged: {name} is missing"):
        read_manifest(index)


def test_a_file_of_another_size_is_named(index: Path) -> None:
    (index / DENSE).write_bytes(b"1234")
    with pytest.raises(IndexMissingError, match="should have 5 bytes and has 4"):
        read_manifest(index)


def test_changed_content_is_found_by_its_checksum_only(index: Path) -> None:
    (index / DENSE).write_bytes(b"12346")
    file = read_manifest(index).files[0]
    with pytest.raises(IndexMissingError, match=r"forward/dense has changed"):
        check_content(index, file)


def test_a_state_that_is_replaced_while_it_is_opened_is_left_for_the_next(index: Path) -> None:
    asked = []

    def opens(manifest: Manifest) -> int:
        asked.append(manifest.generation)
        if manifest.generation < 7:
            write_manifest(index, replace(manifest, generation=manifest.generation + 1))
            raise FileNotFoundError("gone")
        return manifest.generation

    assert (read_state(index, opens), asked) == (7, [4, 5, 6, 7])


def test_a_state_that_cannot_be_opened_is_an_error_at_once(index: Path) -> None:
    asked = []

    def opens(manifest: Manifest) -> None:
        asked.append(manifest.generation)
        raise OSError("no more files")

    with pytest.raises(OSError, match="no more files"):
        read_state(index, opens)
    assert asked == [4]


def test_the_file_holds_what_the_index_format_says(index: Path) -> None:
    record = json.loads((index / "MANIFEST.json").read_text())
    checksum = record.pop("checksum")
    assert checksum == hashlib.sha256(json.dumps(record).encode()).hexdigest()
    file = {"path": DENSE, "size": 5, "sha256": hashlib.sha256(b"12345").hexdigest()}
    empty = {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    assert record == {
        "generation": 4,
        "created": "2025-01-01T00:00:00+00:00",
        "encoder_name": "fake",
        "encoder_seal": "ab12",
        "dense_dim": 8,
        "vocabulary_size": 1000,
        "segments": [
            {
                "name": "000003",
                "documents": 5,
                "deleted": 2,
                "corpus_hash": "cd34",
                "files": [file],
                "deletes": {
                    "path": "deletes/d.npy",
                    "size": 2,
                    "sha256": hashlib.sha256(b"de").hexdigest(),
                },
                "truncated": None,
                "passages": None,
            },
            {
                "name": "000004",
                "documents": 7,
                "deleted": 0,
                "corpus_hash": "cd34",
                "files": [{"path": "segments/000004/empty", **empty}],
                "deletes": None,
                "truncated": None,
                "passages": None,
            },
        ],
        "canaries": {
            "runtime": "fast chips",
            "texts": [
                {"text": "a", "dense": "AACAPw==", "terms": "BwAAAA==", "weights": "AAAAQA=="}
            ],
        },
        "chunk": None,
        "format_version": 4,
    }


def test_format_3_is_read_and_has_no_canaries(index: Path) -> None:
    old = replace(read_manifest(index), canaries=None, format_version=3)
    write_manifest(index, old)
    record = json.loads((index / "MANIFEST.json").read_text())
    assert (record["format_version"], "canaries" in record) == (3, False)
    assert read_manifest(index) == old


@pytest.mark.parametrize("name", ["dense", "terms", "weights"])
@pytest.mark.parametrize("value", ["AACAPw=", "AAA=", "no base64", "AADA/w==", None])
def test_canaries_that_are_no_vectors_are_damage(index: Path, name: str, value: object) -> None:
    # "AADA/w==" is NaN, and below 0 as a term.
    change(index, canaries={"runtime": "", "texts": [{**CANARY, name: value}]})
    with pytest.raises(IndexMissingError, match=r"damaged: MANIFEST\.json"):
        read_manifest(index)


def test_format_3_is_read_and_knows_no_truncated_documents(index: Path) -> None:
    old = replace(read_manifest(index), canaries=None, format_version=3)
    write_manifest(index, old)
    record = json.loads((index / "MANIFEST.json").read_text())
    assert record["format_version"] == 3
    assert "chunk" not in record
    assert all(segment.keys() == {*KEYS_OF_3} for segment in record["segments"])
    assert read_manifest(index) == old
    assert old.truncated is None


def test_how_documents_are_split_is_read_as_it_was_written(index: Path) -> None:
    manifest = read_manifest(index)
    assert manifest.passages is None
    segments = tuple(replace(segment, passages=9) for segment in manifest.segments)
    split = replace(manifest, chunk=Chunk(64, 8), segments=segments)
    write_manifest(index, split)
    assert read_manifest(index) == split
    assert split.passages == 18
    change(index, chunk={"tokens": 8, "overlap": 8})
    with pytest.raises(IndexMissingError, match="overlap must be from 0 to 7"):
        read_manifest(index)


def test_truncated_documents_are_counted_where_all_segments_know(index: Path) -> None:
    first, second = BASE.segments
    known = replace(BASE, segments=(replace(first, truncated=2), replace(second, truncated=0)))
    assert known.truncated == 2
    assert replace(known, segments=(*known.segments, second)).truncated is None
    assert replace(known, segments=()).truncated == 0
    with pytest.raises(ValueError, match="has 4 truncated documents"):
        replace(first, truncated=4)


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    with writer_lock(folder):
        (folder / "data").touch()
        with (
            pytest.raises(DupMAEError, match=rf"process {os.getpid()}\) is at work"),
            writer_lock(folder),
        ):
            pass
    with writer_lock(folder):
        assert (folder / "data").exists()


def test_a_folder_that_stays_empty_is_removed_with_its_lock(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writer_lock(tmp_path / "index"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    assert exit_code(hold_lock, folder) == -9
    assert (folder / "WRITER.lock").exists()
    with writer_lock(folder):
        pass
