"""Facts about Lucene's BM25: equal to the formula, and to what Anserini publishes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from lucene import skip_without_lucene

from dupmae.engine import read_corpus
from dupmae.errors import DupMAEError
from dupmae.eval import load_beir, measure_run
from dupmae.eval.systems import Positional, without_itself
from dupmae.indexes.jvm import java_class
from dupmae.indexes.lucene_text import LuceneTextIndex

TEXTS = ["", "Whales: the whale's swimming.", "A whale, a whale and a fox!", "Foxes run 😀."]
# Stems: none; whale whale swim; whale whale fox; fox run 😀.


@pytest.fixture(autouse=True)
def _lucene() -> None:
    skip_without_lucene()


def weight(frequency: int, texts_with: int) -> float:
    """BM25 with k1 = .9, of a text as long as the mean; a text without words is not counted."""
    return math.log(1 + (3 - texts_with + 0.5) / (texts_with + 0.5)) * frequency / (frequency + 0.9)


def test_scores_are_those_of_the_formula_on_stems_without_stop_words() -> None:
    (ranking,) = LuceneTextIndex(TEXTS).search(["the WHALE and foxes, fox"], 10)
    assert ranking.ordinals.tolist() == [2, 3, 1]
    whale, fox = weight(2, 2), weight(1, 2)
    assert ranking.scores == pytest.approx([whale + 2 * fox, 2 * fox, whale], rel=1e-6)


def test_longer_texts_score_less_by_b() -> None:
    # Lengths 1 and 3 are 1/2 and 3/2 of their mean.
    (ranking,) = LuceneTextIndex(["ham", "ham ham eggs"]).search(["ham"], 2)
    idf = math.log(1 + 0.5 / 2.5)
    assert ranking.scores.tolist() == pytest.approx(
        [idf * 2 / (2 + 0.9 * (0.6 + 0.4 * 1.5)), idf * 1 / (1 + 0.9 * (0.6 + 0.4 * 0.5))]
    )


def test_a_query_without_a_known_word_finds_nothing() -> None:
    for texts in (TEXTS, [""], []):
        rankings = LuceneTextIndex(texts).search(["", "the and", "zebra"], 10)
        assert [len(ranking) for ranking in rankings] == [0, 0, 0]


def test_ties_are_in_the_order_of_the_texts_also_at_the_cut() -> None:
    (ranking,) = LuceneTextIndex(["same words"] * 5).search(["words"], 3)
    assert ranking.ordinals.tolist() == [0, 1, 2]


def test_order_survives_a_corpus_that_is_written_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dupmae.indexes.lucene.BUFFER_MB", 0.1)
    texts = [f"same {' '.join(f'w{number}x{word}' for word in range(9))}" for number in range(3000)]
    (ranking,) = LuceneTextIndex(texts).search(["same"], 3000)
    assert ranking.ordinals.tolist() == list(range(3000))


def test_queries_of_thousands_of_words_and_of_any_characters_are_answered() -> None:
    many = " ".join(f"word{number}" for number in range(3000))
    rankings = LuceneTextIndex(TEXTS).search([f"{many} fox", "😀", "\0 run"], 10)
    assert [ranking.ordinals.tolist() for ranking in rankings] == [[2, 3], [3], [3]]


def test_what_fails_in_java_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @staticmethod
        def newDefaultInstance() -> object:  # noqa: N802 - Java's name
            return java_class("java.util.ArrayList")().get(3)

    monkeypatch.setattr("dupmae.indexes.lucene_text.java_class", lambda _: Broken)
    with pytest.raises(DupMAEError, match=r"^Lucene cannot index the texts: java\.lang\..*Index 3"):
        LuceneTextIndex(TEXTS)


# anserini, docs/regressions/regressions-beir-v1.0.0-{nfcorpus,scifact}.flat.md
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ndcg", "recall"), [("nfcorpus", 0.3218, 0.2457), ("scifact", 0.6789, 0.9253)]
)
def test_figures_are_those_that_anserini_publishes(
    shared_dir: Path, name: str, ndcg: float, recall: float
) -> None:
    collection = load_beir(shared_dir / "beir" / name)
    system = Positional.build(read_corpus(collection.corpus_path), LuceneTextIndex)
    answers = system.search(collection.queries, 1001)
    run = {query_id: without_itself(query_id, hits) for query_id, hits in answers.run.items()}
    values = measure_run(run, collection.qrels, ["nDCG@10", "R@100"])
    means = [float(np.mean(list(values[name].values()))) for name in ("nDCG@10", "R@100")]
    assert means == pytest.approx([ndcg, recall], abs=0.0002)  # ties are in another order
