"""Segments are merged so that they stay few, and nothing but what is live is left of them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from updates import assert_as_built_of, clean, document, encoder, names

from dupmae.engine import build_index, compact, delete_documents, read_manifest
from dupmae.engine.merge import segments_to_merge
from dupmae.types import Document


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("update") / "my.index"
    build_index([document(n) for n in range(40)], encoder(), folder)
    return folder


@pytest.fixture
def folder(built_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(built_once, tmp_path / "my.index")
    return tmp_path / "my.index"


def test_segments_stay_few_and_documents_in_order(folder: Path) -> None:
    for number in range(100, 112):
        build_index([document(number)], encoder(), folder)
        lives = [segment.live for segment in read_manifest(folder).segments]
        assert all(n >= 2 * sum(lives[i + 1 :]) for i, n in enumerate(lives))
    assert len(lives) <= 4
    assert_as_built_of(folder, [document(n) for n in (*range(40), *range(100, 112))])
    assert clean(folder)


def test_a_segment_that_is_mostly_deleted_is_written_anew(folder: Path) -> None:
    delete_documents(folder, [f"d{n}" for n in range(20)])
    assert names(folder) == [("000001", 40, 20)]
    delete_documents(folder, ["d20"])
    assert names(folder) == [("000004", 19, 0)]
    assert_as_built_of(folder, [document(n) for n in range(21, 40)])


def test_compacting_leaves_one_segment_without_a_trace_of_what_was_deleted(folder: Path) -> None:
    secret = Document("secret", "abracadabra", "hocuspocus")
    build_index([secret, document(99)], encoder(), folder)
    delete_documents(folder, ["secret", "d3"])
    manifest = compact(folder)
    assert [(s.documents, s.deleted) for s in manifest.segments] == [(40, 0)]
    assert manifest.corpus_hash != ""
    for path in folder.rglob("*"):
        assert path.is_dir() or b"abracadabra" not in path.read_bytes()
    assert compact(folder) == manifest
    kept = [document(n) for n in (*range(3), *range(4, 40), 99)]
    assert_as_built_of(folder, kept)
    fresh = build_index(kept, encoder(), folder, replace=True)
    assert fresh.corpus_hash == manifest.corpus_hash


def test_vectors_are_copied_when_segments_merge(folder: Path) -> None:
    build_index([document(n) for n in range(40, 45)], encoder(), folder)
    manifest = compact(folder)
    vectors = np.load(folder / "segments" / manifest.segments[0].name / "forward" / "dense.npy")
    expected = encoder().encode_documents([document(n).content for n in range(45)])
    assert vectors.tobytes() == expected.dense.tobytes()


def test_an_update_stands_when_there_is_no_room_to_merge(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("dupmae.engine.merge.merge_segments", full)
        build_index([document(n) for n in range(40, 70)], encoder(), folder)
    assert "were not merged" in caplog.text
    assert [documents for _, documents, _ in names(folder)] == [40, 30]
    assert_as_built_of(folder, [document(n) for n in range(70)])
    build_index([document(70)], encoder(), folder)
    assert [documents for _, documents, _ in names(folder)] == [71]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), max_size=8))
def test_merging_comes_to_an_end_with_few_segments(sizes) -> None:
    @dataclass
    class Sizes:
        live: int
        deleted: int

    segments = [Sizes(*size) for size in sizes]
    for _ in range(20):
        due = segments_to_merge(segments)
        if due is None:
            break
        first, end = due
        merged = Sizes(sum(segment.live for segment in segments[first:end]), 0)
        segments[first:end] = [merged]
    assert segments_to_merge(segments) is None
    assert all(segment.deleted <= segment.live for segment in segments)
    assert 2 ** len(segments) <= 2 * sum(segment.live for segment in segments) + 1
