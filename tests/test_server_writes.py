"""Writing over HTTP: what it does to the index, and that searches go on meanwhile."""

from __future__ import annotations

import gc
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import DOCUMENTS, WordEncoder, problem, serving, write_index
from starlette.testclient import TestClient

from dupmae.engine import SearchEngine, build_index, delete_documents, read_manifest
from dupmae.engine.lock import writer_lock
from dupmae.types import Document

NEW = {"_id": "new", "text": "a lock for vitamin", "title": "New", "year": 2026}


@pytest.fixture(scope="module")
def written_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("writes") / "demo")


@pytest.fixture
def folder(written_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written_once, tmp_path / "demo"))


def test_documents_are_indexed_replaced_and_deleted_and_the_next_answer_says_so(
    folder: Path,
) -> None:
    with serving(folder, writable=True) as client:
        before = client.get("/info").json()["generation"]
        done = client.post("/documents", json={"documents": [NEW, NEW | {"_id": "x"}]}).json()
        assert (done["indexed"], done["documents"]) == (2, 6)
        assert done["generation"] > before
        found = client.get("/documents/new").json()
        assert (found["title"], found["metadata"]) == ("New", {"year": 2026})
        answer = client.post("/search", json={"query": "lock vitamin", "k": 6}).json()
        assert answer["generation"] == done["generation"]
        assert {"new", "x"} <= {hit["id"] for hit in answer["hits"]}
        client.post("/documents", json={"documents": [NEW | {"text": "other"}]})
        assert client.get("/documents/new").json()["text"] == "other"
        assert client.post("/delete", json={"where": "year = 2026"}).json()["deleted"] == 2
        assert client.delete("/documents/a%2Fb").json()["documents"] == 3
        assert client.post("/delete", json={"ids": ["sun"]}).json()["documents"] == 2
        assert client.get("/documents/sun").status_code == 404
    assert read_manifest(folder).documents == 2


def removed_files(folder: Path) -> list[str]:
    """Return what of a folder was removed and is still held open by this process."""
    targets = [str(each.resolve()) for each in Path("/proc/self/fd").iterdir()]
    return [each for each in targets if each.startswith(str(folder)) and "(deleted)" in each]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are seen in /proc only")
def test_what_only_earlier_generations_held_open_is_closed(folder: Path) -> None:
    gc.collect()
    gc.disable()  # it would come sooner or later, on a quiet server much later
    try:
        with serving(folder, writable=True) as client:
            for number in range(3):
                client.post("/documents", json={"documents": [NEW]})
                client.post("/search", json={"query": f"lock {number}", "where": "year = 2026"})
                client.delete("/documents/new")
            assert removed_files(folder) == []
    finally:
        gc.enable()


def test_answers_after_writes_are_those_of_the_engine(folder: Path) -> None:
    with serving(folder, writable=True) as client:
        client.post("/documents", json={"documents": [NEW]})
        client.delete("/documents/bone")
        hits = client.post("/search", json={"query": "vitamin d"}).json()["hits"]
    with SearchEngine.open(folder, WordEncoder(), feedback=0.3) as engine:
        result = engine.search("vitamin d")
    assert [(hit["id"], hit["score"]) for hit in hits] == [(h.doc_id, h.score) for h in result.hits]


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ([], "documents"),
        ([{"text": "no id"}], "_id"),
        ([{"_id": "", "text": "a"}], "_id"),
        ([{"_id": 3, "text": "a"}], "_id"),
        ([{"_id": "a"}], "text"),
        ([{"_id": "a", "text": "a", "title": 3}], "title"),
        ([NEW, {"_id": "b", "text": "\ud800"}], "document 2"),
        ([NEW, {"_id": "b", "text": "b", "x": ["\ud800"]}], "document 2"),
        ([NEW, {"_id": "b", "text": "b", "x": float("inf")}], "document 2"),
        ([NEW, NEW], "repeats"),
    ],
)
def test_a_wrong_document_leaves_the_index_as_it_was(
    folder: Path, documents: list[dict[str, object]], words: str
) -> None:
    before = read_manifest(folder)
    with serving(folder, writable=True) as client:
        body = json.dumps({"documents": documents})
        headers = {"content-type": "application/json"}
        refused = client.post("/documents", content=body, headers=headers)
    status, _, message = problem(refused)
    assert status == 422
    assert words in message
    assert read_manifest(folder) == before


def test_a_delete_that_does_not_say_what_deletes_nothing(folder: Path) -> None:
    with serving(folder, writable=True) as client:
        for asked in (
            {}, {"ids": []}, {"where": ""}, {"where": " "}, {"where": "year ="},
            {"ids": ["sun"], "where": "year = 2019"}, {"ids": None, "where": None},
        ):  # fmt: skip
            assert problem(client.post("/delete", json=asked))[0] == 422, asked
        assert problem(client.post("/delete", json={"ids": ["sun", "no"]}))[:2] == (
            404, "no_document",
        )  # fmt: skip
        assert problem(client.delete("/documents/"))[0] == 404
        assert client.get("/info").json()["documents"] == 4


def test_another_writer_is_a_conflict(folder: Path) -> None:
    with serving(folder, writable=True) as client, writer_lock(folder):
        refused = client.post("/documents", json={"documents": [NEW]})
        assert problem(refused)[:2] == (409, "writer_busy")
        assert str(folder) not in refused.text
        assert refused.headers["Retry-After"]


class _Held(WordEncoder):
    """Encodes documents only when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()

    def encode_documents(self, texts):  # type: ignore[no-untyped-def]
        self.begun.set()
        assert self.go.wait(30)
        return super().encode_documents(texts)


def test_searches_go_on_while_a_write_is_under_way(folder: Path) -> None:
    encoder = _Held()
    with serving(folder, encoder=encoder, writable=True) as client:
        encoder.go.clear()
        with ThreadPoolExecutor(1) as pool:
            write = pool.submit(client.post, "/documents", json={"documents": [NEW]})
            assert encoder.begun.wait(30)
            answer = client.post("/search", json={"query": "lock"}).json()
            assert answer["documents"] == 4
            encoder.go.set()
            assert write.result().json()["documents"] == 5


class _Asking:
    """Asks again and again until it is told to stop; keeps what it saw and what failed."""

    def __init__(self, client: TestClient) -> None:
        self._client = client
        self.done = threading.Event()
        self.seen: set[tuple[int, int]] = set()
        self.failed: list[str] = []

    def ask(self) -> None:
        while not self.done.is_set():
            response = self._client.post("/search", json={"query": "vitamin lock", "k": 9})
            answer = response.json()
            if not response.is_success or len(answer["hits"]) != answer["documents"]:
                self.failed.append(response.text)
                return
            self.seen.add((answer["generation"], answer["documents"]))

    def until_seen(self, wanted: tuple[int, int]) -> None:
        for _ in range(600):
            if wanted in self.seen or self.failed:
                return
            self.done.wait(0.05)


def test_what_another_process_writes_is_seen_without_a_request_lost(folder: Path) -> None:
    with serving(folder) as client, ThreadPoolExecutor(2) as pool:
        asking = _Asking(client)
        threads = [pool.submit(asking.ask) for _ in range(2)]
        try:
            for number in range(3):
                build_index([Document(f"n{number}", "a lock")], WordEncoder(), folder)
            delete_documents(folder, [each.doc_id for each in DOCUMENTS[1:]])
            newest = read_manifest(folder)
            asking.until_seen((newest.generation, newest.documents))
        finally:
            asking.done.set()
        for each in threads:
            each.result()
    assert asking.failed == []
    assert (newest.generation, newest.documents) in asking.seen


def test_an_index_made_anew_by_another_encoder_is_not_taken_up(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(folder) as client:
        build_index(DOCUMENTS[:1], WordEncoder("other"), folder, replace=True)
        for _ in range(600):
            if "stays as it was" in caplog.text:
                break
            threading.Event().wait(0.05)
        assert client.post("/search", json={"query": "lock"}).json()["documents"] == 4
    assert "stays as it was" in caplog.text
    assert "built by encoder other" in caplog.text
