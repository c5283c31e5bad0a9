"""The full-size recipe runs from raw data to a model, on a tiny model and a tiny collection.

Only files, steps, batches and lengths are overridden, so a setting that does not exist or does not
fit another one fails here and not after two days on eight GPUs.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_model import VOCABULARY, WORDS, tiny_model, tiny_tokenizer
from transformers import BertConfig, BertForSequenceClassification

from dupmae.checkpoint import load_model
from dupmae.cli import main
from dupmae.config import load_config
from dupmae.data import RowFile
from dupmae.engine import SearchEngine
from dupmae.errors import CheckpointError, DataError, UsageError
from dupmae.eval import load_beir
from dupmae.finetune import FinetuneConfig
from dupmae.pretrain import PretrainConfig
from dupmae.torch_encoder import TorchEncoder

RECIPES = Path(__file__).parents[1] / "recipes"
BASE = RECIPES / "dupmae-base"
DOCUMENTS, QUERIES = 40, 220
PRETRAINING = ["trainer.steps=2", "trainer.batch_size=4", "corpus.max_length=24"]
FINETUNING = [
    "trainer.steps=2", "trainer.batch_size=4", "data.query_length=12", "data.document_length=24",
]  # fmt: skip
HEADS = ["heads.max_document_length=40", "heads.max_query_length=24"]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


mine, score = script("mine_negatives"), script("score_rows")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the recipe's data in miniature, and be in it."""
    monkeypatch.chdir(tmp_path)
    chance = np.random.default_rng(4)

    def words(count: int) -> str:
        return " ".join(chance.choice(WORDS, count))

    (tmp_path / "data/msmarco/qrels").mkdir(parents=True)
    texts = {f"d{number}": words(12) for number in range(DOCUMENTS)}
    own = [f"d{number % DOCUMENTS}" for number in range(QUERIES)]
    lines = {
        "wikipedia.jsonl": [json.dumps({"title": words(1), "text": words(30)}) for _ in range(12)],
        "bookcorpus.txt": [words(10) for _ in range(12)],
        "msmarco/corpus.jsonl": [
            json.dumps({"_id": name, "title": "", "text": text}) for name, text in texts.items()
        ],
        "msmarco/queries.jsonl": [
            json.dumps({"_id": f"q{number}", "text": " ".join(texts[name].split()[2:5])})
            for number, name in enumerate(own)
        ],
        "msmarco/qrels/train.tsv": [
            "query-id\tcorpus-id\tscore",
            *(f"q{number}\t{name}\t1" for number, name in enumerate(own)),
            "q0\td7\t2",
            "q1\td8\t0",
        ],
    }
    for name, content in lines.items():
        (tmp_path / "data" / name).write_text("\n".join(content) + "\n")
    loaded = tiny_model()
    loaded.lm.save_pretrained(tmp_path / "bert")  # as any MLM checkpoint: no heads
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    return tmp_path


def run(*arguments: str) -> None:
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def run_script(module: ModuleType, *arguments: str) -> None:
    module.main(list(arguments), standalone_mode=False)


def train(command: str, config: str, settings: list[str], *arguments: str) -> None:
    given = [f"--set={setting}" for setting in settings]
    path = str(BASE / f"{config}.toml")
    run(command, "--config", path, "--out", f"runs/dupmae-base/{config}", *arguments, *given)


def save_cross_encoder(folder: Path, labels: int = 1) -> None:
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, num_labels=labels, initializer_range=0.5,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        BertForSequenceClassification(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


@pytest.mark.slow
def test_the_recipe_leads_from_raw_data_to_a_model_that_serves(here: Path) -> None:
    train("pretrain", "1-general", PRETRAINING + HEADS, "--start", "bert")
    train("pretrain", "2-msmarco", PRETRAINING)
    run_script(mine, "data/msmarco", "data/rows.jsonl")
    train("finetune", "3-contrastive", FINETUNING + HEADS)
    model = "runs/dupmae-base/3-contrastive/model"
    run_script(
        mine, "data/msmarco", "data/mined.jsonl", "--index", "mining.index",
        "--model", model,
    )  # fmt: skip
    train("finetune", "4-hard-negatives", FINETUNING)
    save_cross_encoder(here / "teacher")
    run_script(
        score, "data/mined.jsonl", "data/scored.jsonl", "--teacher", "teacher",
        "--length", "40",
    )  # fmt: skip
    train("finetune", "5-distill", FINETUNING)

    ran = {path.name for path in Path("runs/dupmae-base").iterdir()}
    assert ran == {path.stem for path in BASE.glob("*.toml")}
    log = Path("runs/dupmae-base/5-distill/log.jsonl").read_text()
    assert '"given_kl"' in log
    assert '"probe_sum"' in log
    final = load_model("runs/dupmae-base/5-distill/model")
    assert (final.name, final.missing, final.model.heads.dense_dim) == ("dupmae-base", (), 384)
    assert not final.model.heads.normalize
    run(
        "index", "data/msmarco/corpus.jsonl", "--model", "runs/dupmae-base/5-distill/model",
    )  # fmt: skip
    run("search", "ba be", "--model", "runs/dupmae-base/5-distill/model")


def test_the_readme_runs_every_config_with_the_command_that_it_is_for() -> None:
    readme = (BASE / "README.md").read_text(encoding="utf-8")
    for path in BASE.glob("*.toml"):
        command = "pretrain" if path.name[0] in "12" else "finetune"
        line = f"cli.py {command} --config recipes/dupmae-base/{path.name}"
        assert f"{line} --out runs/dupmae-base/{path.stem}" in readme


def settings_of(name: str) -> PretrainConfig | FinetuneConfig:
    kind = PretrainConfig if name[0] in "12" else FinetuneConfig
    return load_config(BASE / f"{name}.toml", kind, {})


def test_fine_tuning_can_begin_anywhere_with_the_same_heads() -> None:
    assert settings_of("1-general").heads == settings_of("3-contrastive").heads is not None


def test_steps_are_epochs_times_examples_over_the_batch_of_eight_gpus() -> None:
    plans = {
        "1-general": (8, 15_000_000),
        "2-msmarco": (20, 8_841_823),
        "3-contrastive": (4, 532_751),
        "4-hard-negatives": (4, 532_751),
        "5-distill": (4, 532_751),
    }
    readme = (BASE / "README.md").read_text(encoding="utf-8")
    for name, (epochs, examples) in plans.items():
        config = settings_of(name)
        steps = epochs * examples / (8 * config.trainer.batch_size)
        assert abs(config.trainer.steps - steps) < 1, name
        assert f"{config.trainer.steps:,}" in readme, name


@pytest.fixture
def engine(here: Path) -> SearchEngine:
    model = tiny_model(dense_weight=0.5)
    TorchEncoder(model, tiny_tokenizer(), "tiny").save(here / "tiny")
    return mine.open_engine(here / "index", load_beir(here / "data/msmarco", "train"), "tiny")


def test_negatives_come_from_the_best_documents_that_are_not_relevant(
    engine: SearchEngine, here: Path
) -> None:
    collection = load_beir(here / "data/msmarco", "train")
    queries = mine.judged_queries(collection, (1, 1))
    assert queries[0].relevant == ["d0", "d7"]
    assert queries[1].relevant == ["d1"]
    assert engine.weights.dense == 0.5
    rows = list(mine.mined_rows(engine, queries[:3], depth=6, negatives=4))
    assert [row["query"] for row in rows] == [queries[i].text for i in (0, 0, 1, 2)]
    ids = {document.text: document.doc_id for document in mine.read_corpus(collection.corpus_path)}
    for row, number in zip(rows, (0, 0, 1, 2), strict=True):
        best = [hit.doc_id for hit in engine.search(queries[number].text, 6).hits]
        found = [ids[negative["text"]] for negative in row["negatives"]]
        assert len(set(found)) == len(found) == 4
        assert set(found) <= set(best) - set(queries[number].relevant)
        assert ids[row["text"]] in queries[number].relevant
    few = list(mine.mined_rows(engine, queries[:1], depth=3, negatives=9))
    assert len(few[0]["negatives"]) <= 3


def test_parts_hold_the_rows_of_the_whole_and_an_index_is_used_again(
    engine: SearchEngine, here: Path
) -> None:
    created = (here / "index" / "MANIFEST.json").read_bytes()
    given = ["data/msmarco", "--index", "index", "--model", "tiny", "--negatives", "3"]
    run_script(mine, *given, "whole.jsonl")
    run_script(mine, *given, "one.jsonl", "--part", "1", "2")
    run_script(mine, *given, "two.jsonl", "--part", "2", "2")
    whole, one, two = (
        (here / f"{name}.jsonl").read_text().splitlines() for name in ("whole", "one", "two")
    )
    assert sorted(whole) == sorted(one + two)
    assert not set(one) & set(two)
    assert (here / "index" / "MANIFEST.json").read_bytes() == created


def test_rows_without_an_index_are_the_same_rows_without_negatives(
    engine: SearchEngine, here: Path
) -> None:
    collection = load_beir(here / "data/msmarco", "train")
    queries = mine.judged_queries(collection, (1, 1))
    mined = mine.mined_rows(engine, queries, depth=5, negatives=2)
    plain = list(mine.plain_rows(collection, queries))
    assert len(plain) == QUERIES + 1
    assert plain == [{key: row[key] for key in row if key != "negatives"} for row in mined]


def test_a_judged_document_that_is_missing_is_named(here: Path) -> None:
    with (here / "data/msmarco/qrels/train.tsv").open("a") as file:
        file.write("q3\tnowhere\t1\n")
    with pytest.raises(DataError, match="nowhere"):
        run_script(mine, "data/msmarco", "rows.jsonl")
    assert not (here / "rows.jsonl").exists()
    with pytest.raises(UsageError, match="no part 3"):
        run_script(mine, "data/msmarco", "rows.jsonl", "--part", "3", "2")


def test_each_text_of_a_row_gets_its_own_score(here: Path) -> None:
    save_cross_encoder(here / "teacher")
    rows = [
        {"query": "ba be", "title": "da", "text": "bi bo", "negatives": ["ka ke " * 40, "fa"]},
        {"query": "ma", "text": "mi mo", "negatives": []},
    ] * 10
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_script(score, "rows.jsonl", "scored.jsonl", "--teacher", "teacher", "--length", "40")
    scored = RowFile(here / "scored.jsonl", here)
    teacher = score.Teacher("teacher", 40, torch.device("cpu"))
    assert len(scored) == 20
    for place in (0, 1, 18, 19):
        row, before = scored[place], RowFile(here / "rows.jsonl", here)[place]
        assert (row.query, row.text, row.negatives) == (before.query, before.text, before.negatives)
        alone = [teacher.score([(row.query, text)])[0] for text in (row.text, *row.negatives)]
        assert row.scores == pytest.approx(alone, abs=1e-3)
    assert len(set(scored[0].scores)) == 3
    given = ["--teacher", "teacher", "--length", "40", "--part", "2", "3"]
    run_script(score, "rows.jsonl", "part.jsonl", *given)
    assert [RowFile(here / "part.jsonl", here)[i].query for i in range(3)] == ["ma", "ba be", "ma"]


def test_what_is_no_cross_encoder_is_refused(here: Path) -> None:
    save_cross_encoder(here / "two", labels=2)
    (here / "rows.jsonl").write_text('{"query": "ba", "text": "be"}\n')
    with pytest.raises(UsageError, match="2 labels"):
        run_script(score, "rows.jsonl", "scored.jsonl", "--teacher", "two")
    save_cross_encoder(here / "short")
    with pytest.raises(UsageError, match="64 tokens, not --length 200"):
        run_script(score, "rows.jsonl", "scored.jsonl", "--teacher", "short")
    (here / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty"):
        run_script(score, "rows.jsonl", "scored.jsonl", "--teacher", "empty")
    with pytest.raises(UsageError, match="no part 3"):
        run_script(score, "rows.jsonl", "s.jsonl", "--teacher", "two", "--part", "3", "2")
