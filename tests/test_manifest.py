from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dupmae.engine.lock import writer_lock
from dupmae.engine.manifest import (
    FORMAT_VERSION,
    Manifest,
    describe_files,
    read_manifest,
    segment_folder,
    verify_checksums,
    write_manifest,
)
from dupmae.errors import DupMAEError, IndexMissingError

BASE = Manifest(
    generation=3,
    created="2025-01-01T00:00:00+00:00",
    encoder_name="fake",
    encoder_seal="ab12",
    documents=2,
    corpus_hash="cd34",
    dense_dim=8,
    vocabulary_size=1000,
    files=(),
)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Make an index folder whose one segment holds two small files."""
    segment = segment_folder(tmp_path, BASE)
    (segment / "forward").mkdir(parents=True)
    (segment / "forward" / "dense").write_bytes(b"12345")
    (segment / "empty").write_bytes(b"")
    write_manifest(tmp_path, replace(BASE, files=describe_files(segment)))
    return tmp_path


def change(index: Path, **values: Any) -> None:
    path = index / "MANIFEST.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_manifest_is_read_as_it_was_written(index: Path) -> None:
    manifest = read_manifest(index)
    assert replace(manifest, files=()) == BASE
    assert [(file.path, file.size) for file in manifest.files] == [
        ("empty", 0),
        ("forward/dense", 5),
    ]
    verify_checksums(index, manifest)


def test_a_segment_is_named_after_its_generation(index: Path) -> None:
    assert segment_folder(index, BASE) == index / "segments" / "000003"


def test_writing_leaves_nothing_beside_the_manifest(index: Path) -> None:
    write_manifest(index, replace(read_manifest(index), documents=5))
    assert read_manifest(index).documents == 5
    assert sorted(path.name for path in index.iterdir()) == ["MANIFEST.json", "segments"]


def test_a_write_that_fails_leaves_the_old_manifest(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_manifest(index, replace(BASE, documents=5))
    assert read_manifest(index).documents == 2


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
        '{"format_version": 1}',
        '{"format_version": "1"}',
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
    [{"generation": "3"}, {"documents": None}, {"files": [{}]}, {"files": 3}, {"created": 1}],
)
def test_a_field_of_another_type_is_damage(index: Path, values: dict[str, Any]) -> None:
    change(index, **values)
    with pytest.raises(IndexMissingError, match="damaged"):
        read_manifest(index)


def test_bytes_that_are_no_text_are_damage(index: Path) -> None:
    (index / "MANIFEST.json").write_bytes(b"\xff\xfe")
    with pytest.raises(IndexMissingError, match="cannot be read"):
        read_manifest(index)


def test_a_newer_format_is_named_and_not_called_damaged(index: Path) -> None:
    change(index, format_version=FORMAT_VERSION + 1, unknown="field")
    with pytest.raises(IndexMissingError, match=rf"has format {FORMAT_VERSION + 1}.*update dupmae"):
        read_manifest(index)


def test_a_missing_segment_file_is_named(index: Path) -> None:
    (segment_folder(index, BASE) / "forward" / "dense").unlink()
    with pytest.raises(
        IndexMissingError, match=r"damaged: segments/000003/forward/dense is missing"
    ):
        read_manifest(index)


def test_a_segment_file_of_another_size_is_named(index: Path) -> None:
    (segment_folder(index, BASE) / "forward" / "dense").write_bytes(b"1234")
    with pytest.raises(IndexMissingError, match="should have 5 bytes and has 4"):
        read_manifest(index)


def test_changed_content_is_found_by_its_checksum_only(index: Path) -> None:
    (segment_folder(index, BASE) / "forward" / "dense").write_bytes(b"12346")
    manifest = read_manifest(index)
    with pytest.raises(IndexMissingError, match=r"forward/dense has changed"):
        verify_checksums(index, manifest)


def test_the_file_holds_what_the_index_format_says(index: Path) -> None:
    record = json.loads((index / "MANIFEST.json").read_text())
    assert record == {
        "generation": 3,
        "created": "2025-01-01T00:00:00+00:00",
        "encoder_name": "fake",
        "encoder_seal": "ab12",
        "documents": 2,
        "corpus_hash": "cd34",
        "dense_dim": 8,
        "vocabulary_size": 1000,
        "files": [
            {"path": "empty", "size": 0, "sha256": hashlib.sha256(b"").hexdigest()},
            {"path": "forward/dense", "size": 5, "sha256": hashlib.sha256(b"12345").hexdigest()},
        ],
        "format_version": 2,
    }


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    with writer_lock(folder):
        (folder / "data").touch()
        with (
            pytest.raises(DupMAEError, match=rf"process {os.getpid()}\) is writing"),
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
    die_holding_it = (
        "import os, sys\nfrom pathlib import Path\nfrom dupmae.engine.lock import writer_lock\n"
        "with writer_lock(Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)\n"
    )
    died = subprocess.run([sys.executable, "-c", die_holding_it, str(folder)], check=False)
    assert died.returncode == -9
    assert (folder / "WRITER.lock").exists()
    with writer_lock(folder):
        pass
