"""An index that was updated in any way answers as one that was built of what it holds."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import numpy as np
import pytest
from fakes import FakeEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killed import dying_at, exit_code
from updates import QUERIES, Model, assert_as_built_of, clean, document, encoder, names

from dupmae.engine import (
    SearchEngine,
    build_index,
    compact,
    delete_documents,
    explain,
    export_index,
    read_corpus,
    read_manifest,
    verify_index,
)
from dupmae.engine.lock import writer_lock
from dupmae.errors import DataError, DupMAEError, IndexMissingError, SealError
from dupmae.indexes.faiss_store import FaissFlat
from dupmae.types import Float32

NUMBERS = st.sets(st.integers(0, 25), min_size=1, max_size=12)
STEPS = st.one_of(
    st.tuples(st.just("add"), NUMBERS, st.integers(0, 3)),
    st.tuples(st.just("delete"), NUMBERS, st.just(0)),
    st.tuples(st.just("compact"), st.just({0}), st.just(0)),
)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=1, max_size=10))
def test_any_long_sequence_of_updates_answers_as_a_fresh_build_of_what_is_left(steps) -> None:
    run_updates(steps)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=2, max_size=5))
def test_any_sequence_of_updates_answers_as_a_fresh_build_of_what_is_left(steps) -> None:
    run_updates(steps)


def run_updates(steps: Sequence[tuple[str, set[int], int]]) -> None:
    with TemporaryDirectory() as place:
        folder, model = Path(place) / "my.index", Model()
        model.add([document(n) for n in range(0, 26, 2)])
        build_index(model.documents, encoder(), folder)
        for kind, numbers, version in steps:
            ids = {f"d{number}" for number in numbers}
            if kind == "add":
                documents = [document(number, version) for number in sorted(numbers)]
                build_index(documents, encoder(), folder, block_size=5)
                model.add(documents)
            elif kind == "delete":
                here = len(model.documents)
                deleted = delete_documents(folder, ids, missing_ok=True)
                model.delete(ids)
                assert deleted == here - len(model.documents)
            else:
                compact(folder)
        assert_as_built_of(folder, model.documents)
        assert verify_index(folder, deep=True) == []
        assert clean(folder)


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("update") / "my.index"
    build_index([document(n) for n in range(40)], encoder(), folder)
    return folder


@pytest.fixture
def folder(built_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(built_once, tmp_path / "my.index")
    return tmp_path / "my.index"


def test_an_update_encodes_what_is_new_and_nothing_else(folder: Path) -> None:
    new = encoder()
    manifest = build_index([document(7, 1), document(99)], new, folder)
    assert new.encoded_documents == 2
    assert manifest == read_manifest(folder)
    assert (manifest.generation, manifest.documents, manifest.corpus_hash) == (2, 41, "")
    assert names(folder) == [("000001", 40, 1), ("000002", 2, 0)]
    kept = [document(n) for n in range(40) if n != 7]
    assert_as_built_of(folder, [*kept, document(7, 1), document(99)])


def test_files_of_live_segments_are_never_touched(folder: Path) -> None:
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("segments/*/**/*.*")}
    build_index([document(7, 1)], encoder(), folder)
    delete_documents(folder, ["d3"])
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before}
    assert after == before


def test_deleting_all_leaves_an_index_without_documents_that_can_be_added_to(folder: Path) -> None:
    assert delete_documents(folder, [f"d{n}" for n in range(40)]) == 40
    assert names(folder) == []
    assert_as_built_of(folder, [])
    assert verify_index(folder, deep=True) == []
    build_index([document(1)], encoder(), folder)
    assert_as_built_of(folder, [document(1)])
    assert names(folder) == [("000003", 1, 0)]


def test_an_unknown_id_is_named_and_nothing_is_deleted(folder: Path) -> None:
    before = (folder / "MANIFEST.json").read_bytes()
    with pytest.raises(DataError, match=r"no document of index .* has the id 'd40'; nothing"):
        delete_documents(folder, ["d1", "d40", "d2"])
    assert (folder / "MANIFEST.json").read_bytes() == before
    assert clean(folder)


def test_unknown_ids_may_be_passed_over_and_ids_may_repeat(folder: Path) -> None:
    asked = iter(["d1", "d40", "\ud800", "", "d1", "d2"])
    assert delete_documents(folder, asked, missing_ok=True) == 2
    assert delete_documents(folder, ["d1", "d3"], missing_ok=True) == 1
    assert delete_documents(folder, ["d1"], missing_ok=True) == 0
    assert read_manifest(folder).generation == 3
    assert names(folder) == [("000001", 40, 3)]


def test_a_deleted_document_is_not_explained_and_a_rank_counts_live_ones(folder: Path) -> None:
    with SearchEngine.open(folder, encoder()) as engine:
        last = engine.search("whale", 40).hits[-1].doc_id
    delete_documents(folder, [d for d in ("d0", "d1", "d2") if d != last])
    with SearchEngine.open(folder, encoder()) as engine:
        hits = engine.search("whale", 100).hits
        for rank, hit in enumerate(hits, start=1):
            explained = explain(engine, "whale", hit.doc_id)
            assert (explained.rank, explained.score) == (rank, hit.score)
        with pytest.raises(DataError, match="no document of the index has the id 'd0'"):
            explain(engine, "whale", "d0")


def test_an_export_holds_live_documents_in_order(folder: Path, tmp_path: Path) -> None:
    build_index([document(7, 1), document(99)], encoder(), folder)
    delete_documents(folder, ["d0"])
    kept = [*(document(n) for n in range(1, 40) if n != 7), document(7, 1), document(99)]
    assert export_index(folder, tmp_path / "out.npz") == 40
    assert list(read_corpus(tmp_path / "out.jsonl")) == kept
    exported = np.load(tmp_path / "out.npz")
    expected = encoder().encode_documents([document.content for document in kept])
    assert np.array_equal(exported["dense"], expected.dense)
    assert np.array_equal(exported["indptr"], expected.sparse.indptr)
    assert np.array_equal(exported["terms"], expected.sparse.terms)


# ---- readers and writers ---------------------------------------------------------------------


def test_a_reader_keeps_its_state_until_it_reloads(folder: Path) -> None:
    with SearchEngine.open(folder, encoder()) as engine:
        before = engine.search("whale", 50)
        build_index([document(7, 1), document(99)], encoder(), folder)
        delete_documents(folder, ["d0"])
        compact(folder)
        assert engine.search("whale", 50) == before
        assert engine.documents.get([0]) == [document(0)]
        assert engine.reload()
        assert len(engine) == 40
        assert not engine.reload()
        with SearchEngine.open(folder, encoder()) as other:
            assert engine.search_batch(QUERIES, 50) == other.search_batch(QUERIES, 50)


def test_a_reload_opens_only_what_is_new(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SearchEngine.open(folder, encoder()) as engine:
        build_index([document(99)], encoder(), folder)
        delete_documents(folder, ["d0"])
        opened = []

        def noted(dense: Float32) -> FaissFlat:
            opened.append(len(dense))
            return FaissFlat(dense)

        monkeypatch.setattr("dupmae.engine.opened.FaissFlat", noted)
        engine.reload()
        assert (len(engine), opened) == (40, [1])


def test_a_reload_finds_an_index_that_was_made_in_the_place_of_a_removed_one(folder: Path) -> None:
    with SearchEngine.open(folder, encoder()) as engine:
        shutil.rmtree(folder)
        build_index([document(n, 1) for n in range(3)], encoder(), folder)
        assert names(folder) == [("000001", 3, 0)]
        assert engine.reload()
        assert engine.documents.get(range(3)) == [document(n, 1) for n in range(3)]


def test_a_reload_that_fails_leaves_the_reader_as_it_was(folder: Path) -> None:
    with SearchEngine.open(folder, encoder()) as engine:
        before = engine.search("whale")
        build_index([document(1)], FakeEncoder("other"), folder, replace=True)
        with pytest.raises(SealError):
            engine.reload()
        (folder / "MANIFEST.json").unlink()
        with pytest.raises(IndexMissingError):
            engine.reload()
        assert engine.search("whale") == before


def test_searches_go_on_while_others_write_and_reload(folder: Path) -> None:
    stopped = Event()
    with SearchEngine.open(folder, encoder()) as engine, ThreadPoolExecutor(2) as pool:

        def ask() -> set[int]:
            lengths = set()
            while not stopped.is_set():
                lengths |= {len(result.hits) for result in engine.search_batch(QUERIES, 100)}
            return lengths

        def reload() -> int:
            return sum(engine.reload() for _ in iter(stopped.is_set, True))

        asked, reloaded = pool.submit(ask), pool.submit(reload)
        for _ in range(8):
            build_index([document(50)], encoder(), folder)
            delete_documents(folder, ["d50"])
        stopped.set()
        assert asked.result() <= {40, 41}
        assert reloaded.result() > 0


@pytest.mark.parametrize("write", [lambda f: delete_documents(f, ["d1"]), compact])
def test_one_writer_at_a_time(folder: Path, write) -> None:
    delete_documents(folder, ["d0"])
    with writer_lock(folder), pytest.raises(DupMAEError, match="another writer"):
        write(folder)
    write(folder)


@pytest.mark.parametrize("write", [lambda f: delete_documents(f, ["d1"]), compact])
def test_where_no_index_is_nothing_is_made(tmp_path: Path, write) -> None:
    with pytest.raises(IndexMissingError, match="no index at"):
        write(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


# ---- updates that are stopped ----------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
@pytest.mark.parametrize("meanwhile", ["nothing", "a delete", "compaction", "a replacement"])
def test_a_killed_update_goes_on_whatever_was_written_meanwhile(
    folder: Path, meanwhile: str, caplog: pytest.LogCaptureFixture
) -> None:
    step, new = "dupmae.indexes.sparse.InvertedIndex.build", [document(n, 1) for n in range(30, 50)]
    options = {"block_size": 4}
    assert exit_code(dying_at, step, build_index, new, encoder(), folder, **options) == -9
    model = Model([document(n) for n in range(40)])
    assert_as_built_of(folder, model.documents)
    if meanwhile != "nothing":
        delete_documents(folder, ["d0", "d35"])
        model.delete({"d0", "d35"})
    if meanwhile == "compaction":
        compact(folder)
    again = encoder()
    with caplog.at_level(logging.WARNING):
        build_index(new, again, folder, block_size=4, replace=meanwhile == "a replacement")
    assert again.encoded_documents == 0
    assert "going on after 20 documents" in caplog.text
    if meanwhile == "a replacement":
        model.documents = []
    model.add(new)
    assert_as_built_of(folder, model.documents)
    assert clean(folder)
