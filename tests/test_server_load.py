"""Under load: what waits is answered together, and what is too much is refused, not piled up."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from serving import WordEncoder, problem, serving, write_index
from starlette.testclient import TestClient

from dupmae.errors import UsageError
from dupmae.server.batcher import Batcher
from dupmae.server.failures import RefusedError
from dupmae.server.settings import ServerSettings
from dupmae.types import CorpusStatistics, Encoded


class SlowEncoder(WordEncoder):
    """Encodes queries only when it is let go, and remembers which it encoded together.

    Canaries, which are looked at when an index is opened, come without a corpus and do not wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()
        self.batches: list[list[str]] = []

    def encode_queries(
        self, texts: Sequence[str], corpus: CorpusStatistics | None = None
    ) -> Encoded:
        if corpus is None:
            return super().encode_queries(texts)
        self.batches.append(list(texts))
        self.begun.set()
        assert self.go.wait(30)
        return super().encode_queries(texts, corpus)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_index(tmp_path / "demo")


def metric(client: TestClient, name: str) -> float:
    (line,) = [each for each in client.get("/metrics").text.splitlines() if each.startswith(name)]
    return float(line.split()[-1])


def until_waiting(client: TestClient, queries: int) -> None:
    for _ in range(600):
        if metric(client, "dupmae_queue_queries") == queries:
            return
        threading.Event().wait(0.02)
    raise AssertionError(f"{queries} queries never waited")


def test_requests_that_wait_are_answered_together_as_they_are_alone(folder: Path) -> None:
    queries = [f"vitamin d lock word{n}" for n in range(6)]
    encoder = SlowEncoder()
    with serving(folder, encoder=encoder) as client, ThreadPoolExecutor(8) as pool:
        first = pool.submit(client.post, "/search", json={"query": "first"})
        assert encoder.begun.wait(30)
        asked = [pool.submit(client.post, "/search", json={"query": each}) for each in queries]
        other = pool.submit(client.post, "/search", json={"query": "other", "k": 1})
        until_waiting(client, 7)
        encoder.go.set()
        together = [each.result().json()["hits"] for each in asked]
        assert first.result().is_success
        assert len(other.result().json()["hits"]) == 1
        assert sorted(map(sorted, encoder.batches)) == sorted(
            [["first"], sorted(queries), ["other"]]
        )
        for query, hits in zip(queries, together, strict=True):
            assert client.post("/search", json={"query": query}).json()["hits"] == hits


def test_beyond_the_queue_requests_are_refused_until_there_is_room(folder: Path) -> None:
    encoder = SlowEncoder()
    with serving(folder, encoder=encoder, queue=2) as client, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.post, "/search", json={"query": "first"})]
        assert encoder.begun.wait(30)
        for number in range(2):
            asked.append(pool.submit(client.post, "/search", json={"query": "more"}))
            until_waiting(client, number + 1)
        refused = client.post("/search", json={"query": "too much"})
        assert problem(refused)[:2] == (503, "busy")
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.get("/health").is_success
        encoder.go.set()
        assert all(each.result().is_success for each in asked)
        assert client.post("/search", json={"query": "again"}).is_success


def test_a_request_that_takes_too_long_is_given_up_and_never_begun(folder: Path) -> None:
    encoder = SlowEncoder()
    with serving(folder, encoder=encoder, time_limit=1) as client, ThreadPoolExecutor(2) as pool:
        begun = pool.submit(client.post, "/search", json={"query": "begun"})
        assert encoder.begun.wait(30)
        late = pool.submit(client.post, "/search", json={"query": "late", "k": 3})
        for asked in (begun, late):
            assert problem(asked.result())[:2] == (504, "too_slow")
        encoder.go.set()
        assert client.post("/search", json={"query": "next"}).is_success
    assert ["late"] not in encoder.batches


def test_a_body_that_is_too_long_is_refused_whether_it_says_so_or_not(folder: Path) -> None:
    def pieces():  # type: ignore[no-untyped-def]
        yield from [b"x" * 600] * 2

    with serving(folder, max_body=1000, writable=True) as client:
        for content in (b"x" * 1200, pieces()):
            assert problem(client.post("/search", content=content))[:2] == (413, "too_long")
        headers = {"content-length": "9" * 5000}
        assert problem(client.post("/search", content=b"", headers=headers))[0] == 413
        documents = [{"_id": "long", "text": "lock " * 1000}]
        assert client.post("/documents", json={"documents": documents}).is_success


def test_a_batch_that_fails_fails_alone() -> None:
    def answer(options: int, queries: Sequence[str]) -> list[str]:
        if options == 1:
            raise ValueError("broken")
        return [query.upper() for query in queries]

    batcher = Batcher[int, str](answer, size=4, limit=8)
    futures = [batcher.submit(options, ["a", "b"]) for options in (0, 1, 0)]
    cancelled = batcher.submit(0, ["never"])
    assert cancelled.cancel()
    assert batcher.waiting == 6
    batcher.start()
    wait(futures)
    assert [futures[0].result(), futures[2].result()] == [["A", "B"]] * 2
    with pytest.raises(ValueError, match="broken"):
        futures[1].result()
    batcher.close()
    with pytest.raises(RefusedError):
        batcher.submit(0, ["late"])


def test_a_request_with_more_queries_than_the_queue_holds_is_answered_when_nothing_waits() -> None:
    batcher = Batcher[int, str](lambda _, queries: list(queries), size=2, limit=2)
    future = batcher.submit(0, ["a", "b", "c"])
    with pytest.raises(RefusedError):
        batcher.submit(0, ["d"])
    batcher.start()
    assert future.result(30) == ["a", "b", "c"]
    batcher.close()


def test_a_limit_out_of_its_range_is_refused() -> None:
    for wrong in ({"max_k": 0}, {"time_limit": 0.5}, {"queue": -1}, {"max_offset": -1}):
        with pytest.raises(UsageError, match=f"^{next(iter(wrong))} must be at least"):
            ServerSettings(**wrong)  # type: ignore[arg-type]
