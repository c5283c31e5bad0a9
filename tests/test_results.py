"""The page of results: its baselines are what they say, and one command writes its tables."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_model import VOCABULARY, WORDS, tiny_tokenizer
from transformers import BertConfig, BertModel

from dupmae.errors import DataError

ROOT = Path(__file__).parents[1]
TEXTS = ["ka ke", "ke ki ki", "ko", "ka ka ka ki"]


@pytest.fixture(scope="module")
def untrained() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("untrained")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def results(untrained: ModuleType) -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("results")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like MiniLM's, of another size and with random weights."""
    folder = tmp_path_factory.mktemp("minilm")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def toy(folder: Path) -> Path:
    """Write a collection whose queries are two words of the document that answers them."""
    (folder / "qrels").mkdir(parents=True)
    texts = [" ".join(np.random.default_rng(n).choice(WORDS, size=5)) for n in range(12)]
    with (folder / "corpus.jsonl").open("w") as corpus, (folder / "queries.jsonl").open("w") as out:
        for number, text in enumerate(texts):
            corpus.write(json.dumps({"_id": f"d{number}", "text": text}) + "\n")
            out.write(json.dumps({"_id": f"q{number}", "text": text[:5]}) + "\n")
    for split, numbers in (("test", range(8)), ("dev", range(8, 12))):
        lines = [f"q{number}\td{number}\t1\n" for number in numbers]
        (folder / "qrels" / f"{split}.tsv").write_text("".join(lines))
    return folder


def test_wordpiece_bm25_equals_its_formula(untrained: ModuleType, minilm: Path) -> None:
    model = untrained.MiniLM(minilm)
    bm25 = untrained.Bm25.of(model.count(TEXTS))
    scores = bm25.scores(model.count(["ki ka", "ki ki"]))
    bags = [Counter(text.split()) for text in TEXTS]
    mean = sum(bag.total() for bag in bags) / len(bags)
    for row, query in enumerate(("ki ka", "ki ki")):
        for column, bag in enumerate(bags):
            expected = 0.0
            for word in query.split():
                with_word = sum(word in other for other in bags)
                idf = math.log(1 + (len(bags) - with_word + 0.5) / (with_word + 0.5))
                length = 0.9 * (1 - 0.4 + 0.4 * bag.total() / mean)
                expected += idf * bag[word] / (bag[word] + length)
            assert scores[row, column] == pytest.approx(expected)


def test_vectors_are_means_of_unit_length_and_are_kept(
    untrained: ModuleType, minilm: Path, tmp_path: Path
) -> None:
    model = untrained.MiniLM(minilm)
    vectors = untrained.corpus_vectors(model, TEXTS, tmp_path / "vectors")
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)
    alone = np.concatenate([model.encode([text]) for text in TEXTS])  # no padding to average over
    assert vectors == pytest.approx(alone, abs=1e-6)
    model.encode = None
    assert np.array_equal(untrained.corpus_vectors(model, TEXTS, tmp_path / "vectors"), vectors)


@pytest.mark.slow
def test_one_command_measures_everything_and_replaces_the_tables_alone(
    results: ModuleType, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    toy(tmp_path / "data" / "toy")
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{results.BEGIN}\nold\n{results.END}\n\nAfter.\n")
    options = ["--data", "data", "--minilm", str(minilm), "--page", str(page)]
    found = CliRunner().invoke(results.main, ["toy", *options])
    assert found.exit_code == 0, found.output
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"Before.\n\n{results.BEGIN}\nMade on 20")
    assert text.endswith(f"{results.END}\n\nAfter.\n")
    assert "old" not in text
    report = json.loads((tmp_path / "runs/eval/toy/report.json").read_text(encoding="utf-8"))
    (summary,) = (table for table in text.split("\n\n") if table.startswith("| nDCG@10 |"))
    for system, line in zip(results.LABELS, summary.splitlines()[2:], strict=True):
        name = f"run:runs/eval/toy/{system}.trec" if system in results.OF_FILES else system
        label, value = line.strip("| ").split(" | ")
        assert label == results.LABELS[system]
        assert float(value.split()[0]) == pytest.approx(
            report["systems"][name]["nDCG@10"], abs=5e-5
        )
    assert "| toy test | top 10 | 100.0% | 12 | 12 | 12 |" in text


@pytest.mark.parametrize("text", ["no marks", "{END} {BEGIN}", "{BEGIN} {BEGIN} {END}"])
def test_a_page_without_a_pair_of_marks_is_refused(results: ModuleType, text: str) -> None:
    with pytest.raises(DataError, match="expected one line"):
        results.replaced(text.format(BEGIN=results.BEGIN, END=results.END), "")
