"""What evaluations ask again is recalled, and means what it would have meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder

from dupmae.commands.remembering import RememberingEngine
from dupmae.engine import SearchEngine, build_index
from dupmae.engine.weights import Weights
from dupmae.types import CorpusStatistics, Document, Encoded

QUERIES = ["fox whale", "storm"]
MOVED = Weights(feedback=0.5)
EVERYTHING = "not x exists"


class CountingEncoder(FakeEncoder):
    asked = 0

    def encode_queries(
        self, texts: Sequence[str], corpus: CorpusStatistics | None = None
    ) -> Encoded:
        self.asked += 1
        return super().encode_queries(texts, corpus)


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def engine(tmp_path: Path, encoder: CountingEncoder) -> Iterator[RememberingEngine]:
    words = ["fox", "whale", "storm", "sea", "bone"]
    documents = [
        Document(str(number), f"{words[number % 5]} {words[number // 5 % 5]} {number}")
        for number in range(60)
    ]
    build_index(documents, encoder, tmp_path / "index")
    with RememberingEngine.open(tmp_path / "index", encoder) as engine:
        encoder.asked = 0
        yield engine


def test_queries_asked_lately_are_not_encoded_again(
    engine: RememberingEngine, encoder: CountingEncoder
) -> None:
    blocks = [[f"query {number}", "fox"] for number in range(16)]
    first = [engine.encode(block, Weights()) for block in blocks]
    again = [engine.encode(block, Weights(0.5, 2.0)) for block in blocks]
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert encoder.asked == 16
    engine.encode(["new"], Weights())  # in the place of the oldest
    engine.encode(blocks[1], Weights())
    assert encoder.asked == 17
    assert np.array_equal(engine.encode(blocks[0], Weights()).dense, first[0].dense)
    assert encoder.asked == 18


def test_feedback_moves_what_was_encoded_once_and_is_kept_by_weights_and_mode(
    engine: RememberingEngine, encoder: CountingEncoder
) -> None:
    plain = engine.encode(QUERIES, Weights())
    moved = engine.encode(QUERIES, MOVED)
    assert encoder.asked == 1
    assert engine.encode(QUERIES, MOVED) is moved
    for other in (Weights(feedback=0.25), Weights(dense=0.5, feedback=0.5)):
        assert not np.array_equal(engine.encode(QUERIES, other).dense, moved.dense)
    assert not np.array_equal(plain.dense, moved.dense)
    assert encoder.asked == 1


def test_answers_are_those_of_an_engine_that_forgets(
    engine: RememberingEngine, encoder: CountingEncoder, tmp_path: Path
) -> None:
    with SearchEngine.open(tmp_path / "index", encoder) as plain:
        for k in (5, 60):
            for settings in (
                {},
                {"feedback": 0.5},
                {"dense_weight": 0.0},
                {"where": EVERYTHING},
            ):
                expected = plain.search_batch(QUERIES, k, **settings)
                for _ in range(2):
                    assert engine.search_batch(QUERIES, k, **settings) == expected


def test_what_is_searched_with_a_filter_is_not_kept(
    engine: RememberingEngine, encoder: CountingEncoder
) -> None:
    some = engine.select(EVERYTHING)
    engine.encode(QUERIES, Weights(), some)
    engine.encode(QUERIES, Weights(), some)
    assert encoder.asked == 2
