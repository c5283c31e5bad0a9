from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dupmae.errors import DataError, IndexMissingError
from dupmae.indexes.documents import DocumentStore, DocumentWriter
from dupmae.types import Document

DOCUMENTS = [
    Document("b/2", "second text", "a title", {"year": 1999, "tags": ["x", None]}),
    Document("a", "", ""),
    Document("ünï 😀", "emoji 😀, NUL \0 and\nnew line", "τίτλος", {"deep": {"er": 0.5}}),
    Document("007", "an id that looks like a number"),
]


@pytest.fixture
def store(tmp_path):
    with DocumentWriter(tmp_path / "documents.sqlite") as writer:
        writer.add(DOCUMENTS[:1])
        writer.add(iter(DOCUMENTS[1:]))
    opened = DocumentStore.open(tmp_path / "documents.sqlite")
    yield opened
    opened.close()


def test_documents_come_back_whole_in_the_order_asked(store):
    assert store.get([3, 0, 2, 1, 0]) == [DOCUMENTS[i] for i in (3, 0, 2, 1, 0)]


def test_ids_come_back_in_the_order_asked(store):
    assert store.ids(np.array([2, 0, 2], np.int64)) == ["ünï 😀", "b/2", "ünï 😀"]


def test_labels_are_documents_without_their_texts_in_the_order_asked(store, monkeypatch):
    monkeypatch.setattr("dupmae.indexes.documents._LABELS", 2)
    asked = [3, 0, 2, 1, 0]
    found = list(store.labels(np.array(asked)))
    assert [tuple(labels) for labels in found] == [
        (DOCUMENTS[i].doc_id, DOCUMENTS[i].title, DOCUMENTS[i].metadata) for i in asked
    ]
    with pytest.raises(IndexError, match="ordinal 4"):
        list(store.labels(np.array([0, 1, 4])))


def test_asking_for_nothing_gives_nothing(store):
    assert store.get([]) == []
    assert store.ids(np.zeros(0, np.int64)) == []


def test_ordinals_count_in_the_order_of_writing(store):
    assert len(store) == 4
    assert store.find([document.doc_id for document in DOCUMENTS]) == {
        document.doc_id: ordinal for ordinal, document in enumerate(DOCUMENTS)
    }


def test_ids_that_are_not_there_are_left_out(store):
    assert store.find(["A", "7", "", "\ud800", "b/2"]) == {"b/2": 0}
    assert store.find([]) == {}


@pytest.mark.parametrize("ordinal", [-1, 4])
def test_an_ordinal_out_of_range_is_an_error(store, ordinal):
    with pytest.raises(IndexError, match=f"ordinal {ordinal}"):
        store.get([0, ordinal])


def test_more_ordinals_than_a_statement_takes_parameters_are_read_at_once(tmp_path):
    with DocumentWriter(tmp_path / "d") as writer:
        writer.add(Document(f"id{i}", f"text {i}") for i in range(3000))
    store = DocumentStore.open(tmp_path / "d")
    order = np.random.default_rng(0).permutation(3000).tolist() * 15

    assert store.ids(order) == [f"id{i}" for i in order]
    assert store.find([f"id{i}" for i in range(0, 6000, 2)]) == {
        f"id{i}": i for i in range(0, 3000, 2)
    }
    store.close()


def test_many_threads_read_at_once(tmp_path):
    with DocumentWriter(tmp_path / "d") as writer:
        writer.add(Document(f"id{i}", f"text {i}") for i in range(500))
    store = DocumentStore.open(tmp_path / "d")

    def read(seed: int) -> bool:
        ordinals = np.random.default_rng(seed).integers(0, 500, 50).tolist()
        found = [(d.doc_id, d.text) for d in store.get(ordinals)]
        return found == [(f"id{i}", f"text {i}") for i in ordinals]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(200)))
    store.close()


def test_a_repeated_id_is_named_and_leaves_no_file(tmp_path):
    documents = [Document("a", "one"), Document("b", "two"), Document("a", "three")]

    with (
        pytest.raises(DataError, match="the id 'a' repeats: document 3 has it"),
        DocumentWriter(tmp_path / "d") as writer,
    ):
        writer.add(documents)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "document",
    [Document("x", "half \ud83d"), Document("x\ud83d", ""), Document("x", "", "", {"k": "\ud83d"})],
)
def test_half_a_surrogate_pair_is_an_error_that_names_the_document(tmp_path, document):
    with (
        pytest.raises(DataError, match=r"'x.*surrogate"),
        DocumentWriter(tmp_path / "d") as writer,
    ):
        writer.add([document])


def test_a_store_of_no_documents_opens(tmp_path):
    with DocumentWriter(tmp_path / "d"):
        pass
    store = DocumentStore.open(tmp_path / "d")

    assert len(store) == 0
    assert store.ids([]) == []
    store.close()


def test_an_unfinished_file_is_not_there_and_a_new_writer_starts_over(tmp_path):
    abandoned = DocumentWriter(tmp_path / "d")
    abandoned.add([Document("a", "one")])
    with pytest.raises(IndexMissingError, match="d is missing"):
        DocumentStore.open(tmp_path / "d")
    leftover = (tmp_path / "d.partial").read_bytes()
    abandoned.discard()
    (tmp_path / "d.partial").write_bytes(leftover)  # as if the first had been killed

    with DocumentWriter(tmp_path / "d") as writer:
        writer.add([Document("b", "two")])

    store = DocumentStore.open(tmp_path / "d")
    assert store.get([0]) == [Document("b", "two")]
    store.close()


def test_a_file_that_cannot_be_opened_is_an_os_error_as_any_failed_write(tmp_path, monkeypatch):
    def connect(*_, **__):
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(OSError, match=r"cannot write .*documents\.sqlite\.partial: unable to open"):
        DocumentWriter(tmp_path / "documents.sqlite")


def test_a_file_that_goes_just_before_it_is_opened_is_named(tmp_path, store, monkeypatch):
    def connect(*_, **__):
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(IndexMissingError, match=r"documents\.sqlite is damaged \(unable to open"):
        DocumentStore.open(tmp_path / "documents.sqlite")


def test_reading_writes_nothing_in_the_folder(tmp_path, store):
    before = tmp_path.stat().st_mtime_ns, sorted(tmp_path.iterdir())

    store.get([0])

    assert (tmp_path.stat().st_mtime_ns, sorted(tmp_path.iterdir())) == before


def test_a_path_with_special_characters_opens(tmp_path):
    path = tmp_path / "50% ?#&=é.sqlite"
    with DocumentWriter(path) as writer:
        writer.add(DOCUMENTS)
    store = DocumentStore.open(path)

    assert store.ids([0]) == ["b/2"]
    store.close()


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be one" * 100])
def test_a_file_that_is_something_else_is_named(tmp_path, content):
    path = tmp_path / "documents.sqlite"
    path.write_bytes(content)

    with pytest.raises(IndexMissingError, match=r"documents\.sqlite"):
        DocumentStore.open(path)


def test_another_programs_database_is_refused(tmp_path):
    connection = sqlite3.connect(tmp_path / "d")
    connection.execute("CREATE TABLE documents (ordinal INTEGER PRIMARY KEY)")
    connection.close()

    with pytest.raises(IndexMissingError, match="holds no documents"):
        DocumentStore.open(tmp_path / "d")


def test_a_file_cut_short_is_found_out_when_read(tmp_path):
    path = tmp_path / "d"
    with DocumentWriter(path) as writer:
        writer.add(Document(f"id{i}", "text " * 200) for i in range(500))
    path.write_bytes(path.read_bytes()[:40_000])

    with pytest.raises(IndexMissingError, match="is damaged"):  # noqa: PT012 # either may find it
        store = DocumentStore.open(path)
        try:
            store.get(range(500))
        finally:
            store.close()


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM documents WHERE ordinal = 1", "UPDATE documents SET metadata = '{'"],
)
def test_a_row_that_is_lost_or_cannot_be_read_is_damage(tmp_path, damage):
    path = tmp_path / "documents.sqlite"
    with DocumentWriter(path) as writer:
        writer.add(DOCUMENTS)
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    connection.close()

    store = DocumentStore.open(path)

    with pytest.raises(IndexMissingError, match=r"documents\.sqlite is damaged \(.*\); build"):
        store.get([1])
    with pytest.raises(IndexMissingError, match=r"documents\.sqlite is damaged \(.*\); build"):
        list(store.labels(np.array([1])))
    store.close()
