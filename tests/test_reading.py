"""Documents of which only the beginning is read are counted, whatever is done to the index."""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder, WordReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dupmae.engine import (
    Manifest,
    SearchEngine,
    build_index,
    compact,
    delete_documents,
    export_index,
    read_manifest,
    verify_index,
)
from dupmae.engine.manifest import write_manifest
from dupmae.engine.reading import BlockReading, Reading, ReadingWriter
from dupmae.engine.vectors import VectorFiles
from dupmae.errors import IndexMissingError
from dupmae.types import Document

LENGTH = 6
"""Four words are read."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "my.index"


def document(number: int, words: int) -> Document:
    return Document(f"d{number}", " ".join(f"w{number % 3}" for _ in range(words)))


def build(folder: Path, documents: Sequence[Document], **options: object) -> Manifest:
    return build_index(documents, WordReader(LENGTH), folder, **options)


def truncated(folder: Path) -> int | None:
    assert verify_index(folder, deep=True) == []
    return read_manifest(folder).truncated


def test_what_is_longer_than_is_read_is_counted_and_named(folder: Path) -> None:
    manifest = build(folder, [document(n, n) for n in range(8)], block_size=3)
    assert manifest.truncated == truncated(folder) == 3
    assert np.load(folder / "segments/000001/reading/truncated.npy").tolist() == [5, 6, 7]


STEPS = st.lists(
    st.one_of(
        st.dictionaries(st.integers(0, 9), st.integers(0, 8), min_size=1, max_size=5),
        st.sets(st.integers(0, 9), max_size=6),
        st.none(),
    ),
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_the_count_is_right_after_any_updates(tmp_path_factory, steps) -> None:
    folder = tmp_path_factory.mktemp("any") / "my.index"
    lengths = {number: number for number in range(10)}
    build(folder, [document(*pair) for pair in lengths.items()])
    for step in steps:
        if isinstance(step, dict):
            build(folder, [document(*pair) for pair in step.items()], block_size=2)
            lengths |= step
        elif isinstance(step, set):
            delete_documents(folder, [f"d{number}" for number in step], missing_ok=True)
            lengths = {n: words for n, words in lengths.items() if n not in step}
        else:
            compact(folder)
        assert truncated(folder) == sum(words > 4 for words in lengths.values())


def test_a_build_that_is_stopped_counts_what_it_had_read(folder: Path) -> None:
    documents = [document(n, n % 8) for n in range(40)]

    def failing():
        yield from documents[:30]
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        build(folder, failing(), block_size=7)
    lines = (folder / "JOURNAL.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["reading"]
    assert [json.loads(line)["truncated"] for line in lines[1:]] == [2, 4, 6, 9]
    build(folder, documents, block_size=7)
    assert truncated(folder) == 15


def test_a_writer_that_cannot_go_on_leaves_no_file_open(tmp_path: Path) -> None:
    split = {"is_known": True, "is_split": True}
    with ReadingWriter(tmp_path, **split) as writer:
        writer.add(BlockReading(np.zeros(2, np.bool_), [np.array([[0, 5]]), np.array([[0, 9]])]))
    with pytest.raises(IndexMissingError, match=r"spans\.npy.*expected .* bytes or more"):
        ReadingWriter(tmp_path, **split, keep=(2, 3, 0))
    gc.collect()  # would warn of files that are open


def test_nothing_is_claimed_where_nobody_knows(folder: Path, tmp_path: Path) -> None:
    encoder = WordReader(LENGTH)
    build(folder, [document(n, n) for n in range(8)])
    export_index(folder, tmp_path / "out.npz")
    with VectorFiles.open([tmp_path / "out.npz"], encoder) as vectors:
        build_index([document(n, n) for n in range(8)], vectors, tmp_path / "other")
    assert truncated(tmp_path / "other") is None
    assert build_index([document(1, 9)], FakeEncoder(), tmp_path / "fake").truncated is None
    build(tmp_path / "other", [document(9, 9)])
    assert truncated(tmp_path / "other") is None
    assert compact(tmp_path / "other").truncated is None
    assert not list((tmp_path / "other").rglob("reading"))


def test_an_index_of_format_3_is_searched_and_written_on(folder: Path) -> None:
    documents = [document(n, n) for n in range(8)]
    manifest = build_index(documents, FakeEncoder(), folder)
    write_manifest(folder, replace(manifest, format_version=3))
    assert truncated(folder) is None
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        assert len(engine.search("w1").hits) == 8
    delete_documents(folder, ["d1"])
    assert read_manifest(folder).format_version == 4
    write_manifest(folder, replace(read_manifest(folder), format_version=3))
    compact(folder)
    assert read_manifest(folder).format_version == 4
    assert truncated(folder) is None


@pytest.mark.parametrize("rows", [[2, 1], [0, 0], [-1], [3, 8]])
def test_a_file_that_names_no_documents_is_damaged(tmp_path: Path, rows: list[int]) -> None:
    np.save(tmp_path / "truncated.npy", np.array(rows, dtype=np.int64))
    with pytest.raises(IndexMissingError, match=r"truncated.npy does not fit 8 documents"):
        Reading.open(tmp_path, 8)


def test_a_wrong_count_is_found_by_a_deep_look(folder: Path) -> None:
    manifest = build(folder, [document(n, n) for n in range(8)])
    (record,) = manifest.segments
    write_manifest(folder, replace(manifest, segments=(replace(record, truncated=2),)))
    (problem,) = verify_index(folder, deep=True)
    assert "counts 2 truncated documents, found 3" in problem
