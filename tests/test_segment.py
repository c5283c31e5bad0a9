"""A build that was stopped goes on at its last block, with the result of one that was not."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeEncoder
from killed import dying_at, exit_code

from dupmae.engine import SearchEngine, build_index, corpus_hash, read_manifest, verify_index
from dupmae.errors import DataError
from dupmae.indexes.documents import DocumentStore
from dupmae.types import Document, Encoded

NEW = [Document(f"new{i}", f"ship number {i}", "title", {"n": i}) for i in range(20)]
BLOCK = 4
FORWARD = ["dense.npy", "indptr.npy", "terms.npy", "weights.npy", "frequency.npy"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "my.index"


def stop_after(folder: Path, count: int, documents: Sequence[Document] = NEW) -> None:
    """Begin a build whose corpus cannot be read beyond so many documents."""

    def failing() -> Iterator[Document]:
        yield from documents[:count]
        raise DataError("line 9: not JSON")

    with pytest.raises(DataError, match="line 9"):
        build_index(failing(), FakeEncoder(), folder, block_size=BLOCK)


def build(folder: Path, documents: Sequence[Document] = NEW) -> int:
    """Build an index and return how many documents were encoded for it."""
    encoder = FakeEncoder()
    build_index(documents, encoder, folder, block_size=BLOCK)
    return encoder.encoded_documents


def assert_equal_to_an_uninterrupted_build(
    folder: Path, documents: Sequence[Document] = NEW
) -> None:
    other = folder.with_name("uninterrupted")
    build(other, documents)
    manifest, expected = read_manifest(folder), read_manifest(other)
    assert (manifest.documents, manifest.corpus_hash) == (len(documents), expected.corpus_hash)
    assert verify_index(folder, deep=True) == []
    one = folder / "segments" / manifest.segments[0].name
    two = other / "segments" / expected.segments[0].name
    for name in FORWARD:
        assert (one / "forward" / name).read_bytes() == (two / "forward" / name).read_bytes()
    stores = [DocumentStore.open(segment / "documents.sqlite") for segment in (one, two)]
    texts, others = (store.get(range(len(documents))) for store in stores)
    assert texts == others == list(documents)
    for store in stores:
        store.close()
    with (
        SearchEngine.open(folder, FakeEncoder()) as engine,
        SearchEngine.open(other, FakeEncoder()) as uninterrupted,
    ):
        query = ["ship number 7", "title", "nothing of the kind"]
        assert engine.search_batch(query, k=20) == uninterrupted.search_batch(query, k=20)
    assert sorted(path.name for path in folder.iterdir()) == [
        "MANIFEST.json",
        "WRITER.lock",
        "segments",
    ]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
@pytest.mark.parametrize(
    ("step", "nth", "finished_blocks"),
    [
        ("fakes.FakeEncoder.encode_documents", 1, 0),
        ("fakes.FakeEncoder.encode_documents", 4, 3),
        ("dupmae.engine.segment.ForwardWriter.add", 3, 2),
        ("dupmae.engine.segment.ForwardWriter.sync", 3, 2),
        ("dupmae.engine.segment.Journal.append", 2, 1),
        ("dupmae.engine.segment.release_free_memory", 2, 2),
        ("dupmae.engine.segment.ForwardWriter.close", 1, 5),
        ("dupmae.indexes.npy.publish", 2, 5),
        ("dupmae.indexes.documents.publish", 1, 5),
        ("dupmae.indexes.sparse.InvertedIndex.build", 1, 5),
        ("dupmae.engine.segment.describe_file", 1, 5),
        ("dupmae.engine.build.write_manifest", 1, 5),
    ],
)
def test_a_killed_build_goes_on_at_the_last_finished_block(
    folder: Path, step: str, nth: int, finished_blocks: int
) -> None:
    options = {"nth": nth, "block_size": BLOCK}
    assert exit_code(dying_at, step, build_index, NEW, FakeEncoder(), folder, **options) == -9
    assert build(folder) == len(NEW) - BLOCK * finished_blocks
    assert_equal_to_an_uninterrupted_build(folder)


def test_a_build_may_be_stopped_again_and_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for count in (5, 9, 13, 18):
        stop_after(folder, count)
    assert build(folder) == 4
    assert_equal_to_an_uninterrupted_build(folder)
    said = [record.getMessage() for record in caplog.records]
    assert said[:3] == [
        "stopped after 4 documents; the same command goes on from there",
        "going on after 4 documents that are encoded already",
        "stopped after 8 documents; the same command goes on from there",
    ]


CHANGES = {
    "the first document": (0, [Document("other", "text"), *NEW[1:]]),
    "one in the third block": (8, [*NEW[:10], Document("other", "text"), *NEW[11:]]),
    "metadata": (4, [*NEW[:5], replace(NEW[5], metadata={"n": -1}), *NEW[6:]]),
    "the order": (8, [*NEW[:8], NEW[9], NEW[8], *NEW[10:]]),
    "one document less": (12, NEW[:15]),
    "a block less": (12, NEW[:12]),
    "one document more": (16, [*NEW, Document("other", "text")]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_corpus_is_encoded_anew_from_the_first_changed_block(
    folder: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    same, documents = CHANGES[change]
    stop_after(folder, 18)
    caplog.clear()
    assert build(folder, documents) == len(documents) - same
    assert_equal_to_an_uninterrupted_build(folder, documents)
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"after {'document ' if same < 16 else ''}{same}" in line


@pytest.mark.parametrize("what", ["encoder", "block size"])
def test_another_encoder_or_block_size_begins_anew_and_says_so(
    folder: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    stop_after(folder, 18)
    caplog.clear()
    encoder = FakeEncoder("other" if what == "encoder" else "fake")
    build_index(NEW, encoder, folder, block_size=BLOCK if what == "encoder" else 5)
    assert encoder.encoded_documents == len(NEW)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "16 first documents" in line
    assert "begun anew" in line


@pytest.mark.parametrize("damage", ["vectors cut", "vectors gone", "journal", "last line"])
def test_what_is_damaged_is_encoded_anew(folder: Path, damage: str) -> None:
    stop_after(folder, 18)
    journal = folder / "JOURNAL.jsonl"
    vectors = folder / "segments/000001/forward/dense.npy.partial"
    lines = journal.read_bytes().splitlines(keepends=True)
    if damage == "vectors cut":
        vectors.write_bytes(vectors.read_bytes()[:200])
    elif damage == "vectors gone":
        vectors.unlink()
    elif damage == "journal":
        journal.write_bytes(b"{}\n" + b"".join(lines[1:]))
    else:
        journal.write_bytes(b"".join(lines)[:-9])
    assert build(folder) == (8 if damage == "last line" else 20)
    assert_equal_to_an_uninterrupted_build(folder)


def test_an_unfinished_build_beside_an_index_waits_for_one_that_may_replace_it(
    folder: Path,
) -> None:
    build(folder, NEW[:3])
    encoder = FakeEncoder()
    documents = [*NEW[:9], NEW[0]]  # an id repeats
    with pytest.raises(DataError, match="new0"):
        build_index(documents, encoder, folder, block_size=BLOCK, replace=True)
    encoder = FakeEncoder()
    build_index(NEW, encoder, folder, block_size=BLOCK, replace=True)
    assert encoder.encoded_documents == 12
    assert_equal_to_an_uninterrupted_build(folder)


def test_an_index_that_was_complete_but_for_its_journal_is_not_begun_anew(folder: Path) -> None:
    stop_after(folder, 18)
    journal = (folder / "JOURNAL.jsonl").read_bytes()
    build(folder)
    (folder / "JOURNAL.jsonl").write_bytes(journal)  # as if killed before it was removed
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        assert len(engine) == 20
    build_index(NEW[:6], FakeEncoder(), folder, block_size=BLOCK, replace=True)
    assert_equal_to_an_uninterrupted_build(folder, NEW[:6])


class TwoSteps(FakeEncoder):
    """An encoder in two halves, of which the first one notes how far the second one is."""

    def __init__(self) -> None:
        super().__init__()
        self.overlaps: list[int] = []

    def tokenise_documents(self, texts: Sequence[str]) -> list[list[int]]:
        self.overlaps.append(self.encoded_documents)
        return [list(text.encode()) for text in texts]

    def encode_tokenised(self, ids: Sequence[Sequence[int]]) -> Encoded:
        return super().encode_documents([bytes(text).decode() for text in ids])

    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        raise AssertionError("an encoder in two halves is used so")


def test_an_encoder_in_two_halves_gives_the_same_index(folder: Path) -> None:
    encoder = TwoSteps()
    build_index(NEW, encoder, folder, block_size=BLOCK)
    assert_equal_to_an_uninterrupted_build(folder)
    assert encoder.overlaps[1] <= 4  # the second block, before more than the first was encoded


def test_the_journal_tells_what_is_built_and_how_far_it_is(folder: Path) -> None:
    stop_after(folder, 9)
    plan, first, second = map(json.loads, (folder / "JOURNAL.jsonl").read_text().splitlines())
    assert plan["segment"] == "000001"
    assert plan["encoder_seal"] == FakeEncoder().seal
    assert plan["block_size"] == BLOCK
    assert (first["documents"], second["documents"]) == (4, 8)
    assert second["corpus_hash"] == corpus_hash(NEW[:8])


def test_nothing_is_said_of_a_build_that_is_not_resumed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        build(folder)
    assert caplog.records == []
