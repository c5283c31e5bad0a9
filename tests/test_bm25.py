"""Facts about BM25: equal to the formula, and to what the shared collections gave before."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dupmae.engine import read_corpus
from dupmae.errors import DataError
from dupmae.eval import load_beir, measure_run
from dupmae.eval.bm25 import Bm25
from dupmae.eval.systems import without_itself
from dupmae.types import Document

DOCUMENTS = [
    Document("a", "The whale swims.", title="Whales"),
    Document("b", "A whale, a whale and a fox!"),
    Document("c", "Foxes run."),
    Document("d", ""),
]
# Words without stop words: a whales whale swims; b whale whale fox; c foxes run; d none.
LENGTHS = {"a": 3, "b": 3, "c": 2, "d": 0}


def weight(frequency: int, doc_id: str, documents_with: int) -> float:
    """BM25 as Lucene has it, k1 = .9 and b = .4."""
    idf = math.log(1 + (len(LENGTHS) - documents_with + 0.5) / (documents_with + 0.5))
    average = sum(LENGTHS.values()) / len(LENGTHS)
    return idf * frequency / (frequency + 0.9 * (1 - 0.4 + 0.4 * LENGTHS[doc_id] / average))


def test_scores_are_those_of_the_formula() -> None:
    run = Bm25(DOCUMENTS).search({"q": "the whale and a FOX"}, 10).run
    assert run["q"] == [
        ("b", pytest.approx(weight(2, "b", 2) + weight(1, "b", 1), rel=1e-6)),
        ("a", pytest.approx(weight(1, "a", 2), rel=1e-6)),
    ]


def test_stemming_finds_other_forms() -> None:
    run = Bm25(DOCUMENTS, stem=True).search({"q": "fox"}, 10).run
    assert {doc_id for doc_id, _ in run["q"]} == {"b", "c"}


def test_a_query_without_a_known_word_finds_nothing() -> None:
    system = Bm25(DOCUMENTS)
    queries = {"empty": "", "stop words": "the and", "unknown": "zebra"}
    assert system.search(queries, 10).run == {key: [] for key in queries}


def test_ties_are_in_the_order_of_the_corpus_also_at_the_cut() -> None:
    system = Bm25([Document(name, "same words") for name in "zyxw"])
    assert [doc_id for doc_id, _ in system.search({"q": "words"}, 3).run["q"]] == ["z", "y", "x"]


def test_a_corpus_without_words_is_refused() -> None:
    with pytest.raises(DataError, match="no word in the 1 documents"):
        Bm25([Document("d", "the")])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("nfcorpus", 0.304), ("cranfield", 0.316)])
def test_figures_are_those_measured_before(shared_dir: Path, name: str, expected: float) -> None:
    collection = load_beir(shared_dir / "beir" / name)
    answers = Bm25(read_corpus(collection.corpus_path)).search(collection.queries, 1000)
    run = {query_id: without_itself(query_id, hits) for query_id, hits in answers.run.items()}
    values = measure_run(run, collection.qrels, ["nDCG@10"])["nDCG@10"]
    assert float(np.mean(list(values.values()))) == pytest.approx(expected, abs=0.0005)
