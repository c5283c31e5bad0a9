"""Damage is found and named: by opening where that is cheap, by `verify_index` always."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder, WordReader
from forged import approve

from dupmae.engine import (
    Chunk,
    SearchEngine,
    build_index,
    compact,
    delete_documents,
    read_manifest,
    verify_index,
)
from dupmae.engine.manifest import write_manifest
from dupmae.errors import DupMAEError, IndexMissingError
from dupmae.indexes.documents import DocumentWriter
from dupmae.types import Document

DOCUMENTS = [Document(f"d{n}", f"whale {'ship ' * (n % 5)} sea{n % 7}") for n in range(60)]


def build(folder: Path, encoder: FakeEncoder, **options: object) -> Path:
    """Make an index of two segments, both with deletes."""
    build_index(DOCUMENTS[:50], encoder, folder, **options)
    build_index(DOCUMENTS[40:], encoder, folder)
    delete_documents(folder, ["d1", "d45"])
    assert [s.deleted for s in read_manifest(folder).segments] == [11, 1]
    return folder


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("verify") / "my.index", FakeEncoder())


@pytest.fixture
def folder(built_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(built_once, tmp_path / "my.index")
    return tmp_path / "my.index"


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    """Make an index with all that an index may hold: passages, and a graph of their vectors."""
    folder = build(tmp_path / "my.index", WordReader(7), chunk=Chunk(3, 1), hnsw=True)
    kinds = {Path(name).parts[2] for name in files(folder) if name.startswith("segments/")}
    assert kinds == {"documents.sqlite", "forward", "hnsw", "inverted", "outline", "reading"}
    return folder


def files(folder: Path) -> list[str]:
    return [file.path for file in read_manifest(folder).files]


def test_nothing_is_wrong_with_a_good_index(passages: Path) -> None:
    assert verify_index(passages) == verify_index(passages, deep=True) == []


def test_where_no_index_is_there_is_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(IndexMissingError, match="no index at"):
        verify_index(tmp_path)


def test_a_flipped_bit_in_any_file_is_found_and_named(passages: Path) -> None:
    for name in files(passages):
        path = passages / name
        content = path.read_bytes()
        for place in sorted({0, len(content) // 2, len(content) - 1}):
            flipped = bytearray(content)
            flipped[place] ^= 4
            path.write_bytes(flipped)
            (problem,) = verify_index(passages)
            assert f"the content of {name} has changed" in problem
            assert "--replace" in problem
        path.write_bytes(content)
    assert verify_index(passages) == []


def test_a_missing_file_and_one_cut_short_are_found_by_both(passages: Path) -> None:
    for name in files(passages):
        path = passages / name
        content = path.read_bytes()
        path.unlink()
        (problem,) = verify_index(passages, deep=True)
        assert f"{name} is missing" in problem
        with pytest.raises(IndexMissingError, match=f"{name} is missing"):
            SearchEngine.open(passages, FakeEncoder())
        path.write_bytes(content[:-1])
        (problem,) = verify_index(passages)
        assert f"{name} should have {len(content)} bytes and has {len(content) - 1}" in problem
        with pytest.raises(IndexMissingError, match=f"{name} should have"):
            SearchEngine.open(passages, FakeEncoder())
        path.write_bytes(content)


def test_all_that_is_wrong_is_said(folder: Path) -> None:
    broken = files(folder)[::3]
    for name in broken:
        (folder / name).write_bytes(b"")
    problems = verify_index(folder)
    assert len(problems) == len(broken)
    assert all(name in problem for name, problem in zip(broken, problems, strict=True))


def test_a_flipped_bit_among_the_deletes_is_found_when_opening(folder: Path) -> None:
    for record in read_manifest(folder).segments:
        path = folder / record.deletes.path
        content = path.read_bytes()
        path.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
        with pytest.raises(IndexMissingError, match=f"{record.deletes.path} has changed"):
            SearchEngine.open(folder, FakeEncoder())
        path.write_bytes(content)


# ---- contradictions that no checksum shows ---------------------------------------------------


def nan(array: np.ndarray) -> None:
    array[3, 2] = np.nan


def bigger(array: np.ndarray) -> None:
    array[:] *= 8


def negative(array: np.ndarray) -> None:
    array[5] *= -1


def nothing(array: np.ndarray) -> None:
    array[:] = 0


def one_more(array: np.ndarray) -> None:
    array[0] += 1


def out_of_order(array: np.ndarray) -> None:
    array[:2] = array[:2][::-1]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("forward/dense.npy", nan, "a dense vector of rows 0 to 49 is not finite"),
        ("forward/weights.npy", negative, "rows 0 to 49 is none: weights must be finite"),
        ("forward/terms.npy", out_of_order, "rows 0 to 49 is none: terms must be strictly"),
        ("forward/frequency.npy", one_more, "frequency.npy does not count the terms"),
        ("forward/weights.npy", bigger, "the sparse list for the vector of row 0 leaves out"),
        ("outline/heads.npy", nothing, "the outline for the vector of row 0 leaves out"),
    ],
)
def test_files_that_contradict_each_other_are_found_in_depth(
    folder: Path, name: str, change: Callable[[np.ndarray], None], message: str
) -> None:
    path = folder / "segments/000001" / name
    array = np.load(path)
    change(array)
    np.save(path, array)
    approve(folder)
    assert verify_index(folder) == []
    assert message in "\n".join(verify_index(folder, deep=True))


def test_other_texts_are_found_in_depth(folder: Path) -> None:
    path = folder / "segments/000001/documents.sqlite"
    path.unlink()
    with DocumentWriter(path) as writer:
        writer.add([*DOCUMENTS[:49], Document("d49", "a changed text")])
    approve(folder)
    (problem,) = verify_index(folder, deep=True)
    assert "segment 000001: the texts are not those that were indexed" in problem


def test_an_id_in_two_segments_is_found_in_depth(folder: Path) -> None:
    manifest = read_manifest(folder)
    first = replace(manifest.segments[0], deleted=0, deletes=None)
    write_manifest(folder, replace(manifest, segments=(first, manifest.segments[1])))
    problems = verify_index(folder, deep=True)
    assert len(problems) == 9  # d40 to d49 but d45, which is deleted of the second
    assert "two live documents have the id 'd40'" in problems[0]


# ---- a folder where nothing may be written ---------------------------------------------------


@pytest.fixture
def read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let every change of the folder fail as on a read-only file system; root minds no rights."""
    real = os.open

    def refuse(path, flags, *rest, **options):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(str(folder)):
            raise OSError(30, "Read-only file system", str(path))
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    return folder


def test_a_read_only_index_is_searched_and_verified(read_only: Path) -> None:
    with SearchEngine.open(read_only, FakeEncoder()) as engine:
        assert len(engine.search("whale", 100).hits) == 58
    assert verify_index(read_only, deep=True) == []


@pytest.mark.parametrize(
    "write",
    [
        lambda f: build_index(DOCUMENTS, FakeEncoder(), f),
        lambda f: delete_documents(f, ["d0"]),
        compact,
    ],
)
def test_writing_to_a_read_only_index_is_one_line(
    read_only: Path, write: Callable[[Path], object]
) -> None:
    with pytest.raises(DupMAEError, match=r"^index .*Read-only file system.*") as caught:
        write(read_only)
    assert "\n" not in str(caught.value)
