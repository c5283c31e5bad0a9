from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder
from killed import dying_at, exit_code

from dupmae.engine import (
    SearchEngine,
    build_index,
    corpus_hash,
    delete_documents,
    read_manifest,
    verify_index,
)
from dupmae.engine.lock import writer_lock
from dupmae.engine.manifest import write_manifest
from dupmae.errors import DataError, DupMAEError, IndexMissingError, SealError, UsageError
from dupmae.indexes.forward import ForwardStore
from dupmae.types import Document

OLD = [Document(f"old{i}", f"whale number {i}") for i in range(3)]
NEW = [Document(f"new{i}", f"ship number {i}", "title", {"n": i}) for i in range(20)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "my.index"


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old") / "my.index"
    build_index(OLD, FakeEncoder(), folder)
    return folder


@pytest.fixture
def old_index(built_once: Path, folder: Path) -> Path:
    shutil.copytree(built_once, folder)
    return folder


def answer(folder: Path) -> list[str]:
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        return sorted(hit.doc_id for hit in engine.search("number", k=100).hits)


def ids(documents: list[Document]) -> list[str]:
    return sorted(document.doc_id for document in documents)


def segments(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "segments").iterdir())


def test_the_manifest_says_what_was_indexed_and_all_checksums_hold(folder: Path) -> None:
    encoder = FakeEncoder()
    manifest = build_index(NEW, encoder, folder, block_size=7)
    assert manifest == read_manifest(folder)
    assert manifest.documents == 20
    assert (manifest.encoder_name, manifest.encoder_seal) == ("fake", encoder.seal)
    assert (manifest.dense_dim, manifest.vocabulary_size) == (8, 1000)
    assert manifest.corpus_hash == corpus_hash(NEW)
    assert manifest.generation == 1
    assert verify_index(folder, deep=True) == []
    on_disk = {path for path in (folder / "segments").rglob("*") if path.is_file()}
    assert on_disk == {folder / file.path for file in manifest.files}
    assert sorted(path.name for path in folder.iterdir()) == [
        "MANIFEST.json",
        "WRITER.lock",
        "segments",
    ]


@pytest.mark.parametrize("block_size", [1, 7, 20, 1000])
def test_the_index_does_not_depend_on_the_block_size(folder: Path, block_size: int) -> None:
    build_index(NEW, FakeEncoder(), folder, block_size=block_size)
    stored = ForwardStore.open(folder / "segments/000001/forward")
    expected = FakeEncoder().encode_documents([document.content for document in NEW])
    np.testing.assert_array_equal(stored.dense, expected.dense)
    np.testing.assert_array_equal(stored.sparse.indptr, expected.sparse.indptr)
    np.testing.assert_array_equal(stored.sparse.terms, expected.sparse.terms)
    np.testing.assert_array_equal(stored.sparse.weights, expected.sparse.weights)


def test_documents_are_read_no_further_than_two_blocks_ahead(folder: Path) -> None:
    encoder = FakeEncoder()

    def documents() -> Iterator[Document]:
        for number, document in enumerate(NEW):
            assert encoder.encoded_documents > number - 4 * 3  # the third is being encoded
            yield document

    assert build_index(documents(), encoder, folder, block_size=4).documents == 20


def test_documents_can_be_looked_up_afterwards(folder: Path) -> None:
    build_index(NEW, FakeEncoder(), folder)
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        assert engine.documents.get([3, 0]) == [NEW[3], NEW[0]]


def test_documents_of_another_encoder_are_not_added(old_index: Path) -> None:
    other = FakeEncoder("other")
    with pytest.raises(SealError, match=r"by encoder fake .*to which other .*--replace"):
        build_index(NEW, other, old_index)
    assert other.encoded_documents == 0
    assert answer(old_index) == ids(OLD)


def test_replacing_removes_the_old_segment_and_counts_the_generation(old_index: Path) -> None:
    assert build_index(NEW, FakeEncoder(), old_index, replace=True).generation == 2
    assert answer(old_index) == ids(NEW)
    assert segments(old_index) == ["000002"]


def test_a_reader_keeps_the_generation_it_opened(old_index: Path) -> None:
    with SearchEngine.open(old_index, FakeEncoder()) as engine:
        before = engine.search("whale number", k=3)
        build_index(NEW, FakeEncoder(), old_index, replace=True)
        assert engine.search("whale number", k=3) == before
        assert engine.documents.get([0]) == OLD[:1]


def test_replace_where_nothing_is_makes_a_first_index(folder: Path) -> None:
    assert build_index(NEW, FakeEncoder(), folder, replace=True).generation == 1


@pytest.mark.parametrize("damage", ["{", '{"format_version": 99}'])
def test_a_damaged_or_newer_index_is_replaced_only_when_asked(old_index: Path, damage: str) -> None:
    (old_index / "MANIFEST.json").write_text(damage)
    with pytest.raises(IndexMissingError):
        build_index(NEW, FakeEncoder(), old_index)
    assert segments(old_index) == ["000001"]
    build_index(NEW, FakeEncoder(), old_index, replace=True)
    assert (answer(old_index), segments(old_index)) == (ids(NEW), ["000002"])


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "segments" / "000001").mkdir(parents=True)
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match=r"is no index but holds 'segments'"):
        build_index(NEW, FakeEncoder(), tmp_path, replace=replace)
    assert (tmp_path / "segments" / "000001").is_dir()


def test_a_file_is_no_index_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        build_index(NEW, FakeEncoder(), tmp_path / "file")


def test_an_empty_folder_is_used(folder: Path) -> None:
    folder.mkdir()
    build_index(NEW, FakeEncoder(), folder)
    assert answer(folder) == ids(NEW)


def test_a_block_size_below_one_is_a_usage_error(folder: Path) -> None:
    with pytest.raises(UsageError, match="block_size"):
        build_index(NEW, FakeEncoder(), folder, block_size=0)


def test_no_documents_make_no_index(folder: Path) -> None:
    with pytest.raises(DataError, match="no documents"):
        build_index([], FakeEncoder(), folder)
    assert not folder.exists()


def test_a_second_build_at_the_same_time_is_refused(old_index: Path) -> None:
    with writer_lock(old_index), pytest.raises(DupMAEError, match="another writer"):
        build_index(NEW, FakeEncoder(), old_index, replace=True)
    assert answer(old_index) == ids(OLD)


def test_a_repeated_id_is_found_before_its_block_is_encoded(folder: Path) -> None:
    encoder = FakeEncoder()
    with pytest.raises(DataError, match="new3"):
        build_index([*NEW, NEW[3]], encoder, folder, block_size=10)
    assert encoder.encoded_documents == 20


def failing(error: BaseException) -> Iterator[Document]:
    yield from NEW
    raise error


@pytest.mark.parametrize(
    "error", [DataError("line 21: not JSON"), KeyboardInterrupt(), MemoryError(), SystemExit(1)]
)
def test_a_build_that_is_broken_off_leaves_the_old_index(
    old_index: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        build_index(failing(error), FakeEncoder(), old_index, replace=True, block_size=4)
    assert answer(old_index) == ids(OLD)
    build_index(NEW[:2], FakeEncoder(), old_index, replace=True)
    assert (answer(old_index), segments(old_index)) == (ids(NEW[:2]), ["000002"])


@pytest.mark.parametrize("error", [DataError("line 21: not JSON"), KeyboardInterrupt()])
def test_a_first_build_that_is_broken_off_in_its_first_block_leaves_nothing(
    folder: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        build_index(failing(error), FakeEncoder(), folder, block_size=100)
    assert not folder.exists()


STEPS = [
    "dupmae.engine.segment.DocumentWriter.add",
    "dupmae.engine.segment.ForwardWriter.add",
    "dupmae.engine.segment.ForwardWriter.sync",
    "dupmae.engine.journal.Journal.append",
    "dupmae.engine.segment.ForwardWriter.close",
    "dupmae.indexes.sparse.InvertedIndex.build",
    "dupmae.engine.segment.describe_file",
    "dupmae.files.publish",
]


@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_at_any_step_is_one_clear_line_and_no_harm(
    old_index: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(step, fail)
        with pytest.raises(DupMAEError, match=r"my\.index.*No space left.*unchanged") as caught:
            build_index(NEW, FakeEncoder(), old_index, replace=True)
    assert "\n" not in str(caught.value)
    assert answer(old_index) == ids(OLD)
    build_index(NEW, FakeEncoder(), old_index, replace=True)
    assert (answer(old_index), segments(old_index)) == (ids(NEW), ["000002"])


def test_an_error_after_the_manifest_says_that_the_new_index_stands(
    old_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(journal: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("dupmae.engine.build.Journal.remove", fail)
        with pytest.raises(DupMAEError, match=r"could not be built: .* yet it is complete"):
            build_index(NEW, FakeEncoder(), old_index, replace=True)
    assert answer(old_index) == ids(NEW)
    assert (old_index / "JOURNAL.jsonl").exists()
    delete_documents(old_index, ["new0"])
    assert (answer(old_index), segments(old_index)) == (ids(NEW[1:]), ["000002"])
    assert not (old_index / "JOURNAL.jsonl").exists()


def test_ctrl_c_while_a_block_is_noted_keeps_that_block(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flush = os.fsync

    def interrupt(number: int) -> None:
        flush(number)
        if Path(f"/proc/self/fd/{number}").readlink().name == "JOURNAL.jsonl":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dupmae.engine.journal.os.fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build_index(NEW, FakeEncoder(), folder, block_size=8)
    assert caplog.messages == ["stopped after 8 documents; the same command goes on from there"]
    build_index(NEW, FakeEncoder(), folder, block_size=8)
    assert "going on after 8 documents that are encoded already" in caplog.messages
    assert answer(folder) == ids(NEW)


def test_ctrl_c_after_the_manifest_leaves_the_new_index(
    old_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish_and_interrupt(folder: Path, manifest: Any) -> None:
        write_manifest(folder, manifest)
        raise KeyboardInterrupt

    monkeypatch.setattr("dupmae.engine.build.write_manifest", publish_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_index(NEW, FakeEncoder(), old_index, replace=True)
    assert answer(old_index) == ids(NEW)


def killed_build(folder: Path, step: str, *, after: bool = False) -> int | None:
    options = {"after": after, "replace": True, "block_size": 4}
    return exit_code(dying_at, step, build_index, NEW, FakeEncoder(), folder, **options)


@pytest.mark.parametrize(
    "step", ["dupmae.engine.segment.ForwardWriter.close", "dupmae.engine.build.write_manifest"]
)
def test_a_killed_build_leaves_the_old_index_and_the_next_one_cleans_up(
    old_index: Path, step: str
) -> None:
    assert killed_build(old_index, step) == -9
    assert segments(old_index) == ["000001", "000002"]
    assert answer(old_index) == ids(OLD)
    build_index(NEW, FakeEncoder(), old_index, replace=True)
    assert (answer(old_index), segments(old_index)) == (ids(NEW), ["000002"])


def test_a_killed_first_build_leaves_no_index_and_the_next_one_cleans_up(folder: Path) -> None:
    assert killed_build(folder, "dupmae.engine.segment.describe_file") == -9
    with pytest.raises(IndexMissingError, match="no index at"):
        read_manifest(folder)
    build_index(NEW, FakeEncoder(), folder)
    assert (answer(folder), segments(folder)) == (ids(NEW), ["000001"])


def test_a_build_killed_after_its_manifest_has_replaced_the_index(old_index: Path) -> None:
    assert killed_build(old_index, "dupmae.engine.build.write_manifest", after=True) == -9
    assert answer(old_index) == ids(NEW)
    build_index(OLD, FakeEncoder(), old_index)
    assert answer(old_index) == ids([*NEW, *OLD])


BUILD_WITH_A_LIMIT = """
import resource, sys
sys.path.insert(0, {tests!r})
from fakes import FakeEncoder
from test_build import NEW
from dupmae.engine import build_index
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
build_index(NEW, FakeEncoder(), {folder!r}, replace=True, block_size=4)
"""


@pytest.mark.skipif(os.name == "nt", reason="no file size limits on Windows")
@pytest.mark.parametrize("limit", [pytest.param(100, marks=pytest.mark.slow), 5_000])
def test_writes_that_the_system_refuses_leave_the_old_index(old_index: Path, limit: int) -> None:
    script = BUILD_WITH_A_LIMIT.format(
        tests=str(Path(__file__).parent), folder=str(old_index), limit=limit
    )
    refused = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert refused.returncode == 1
    last = refused.stderr.strip().splitlines()[-1]
    assert re.search(r"DupMAEError: index .*my\.index could not be built: .*unchanged", last), last
    assert answer(old_index) == ids(OLD)
    build_index(NEW, FakeEncoder(), old_index, replace=True)
    assert (answer(old_index), segments(old_index)) == (ids(NEW), ["000002"])
