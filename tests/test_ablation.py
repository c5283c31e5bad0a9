"""The ablation makes its rows with equal budgets, measures them, and repeats nothing."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_model import VOCABULARY, WORDS, tiny_tokenizer
from transformers import BertConfig, BertModel

from dupmae import torch_network
from dupmae.checkpoint import load_model
from dupmae.cli import main
from dupmae.config import flat_config, load_config, parse_overrides
from dupmae.data import RowFile
from dupmae.encoder import Encoder
from dupmae.errors import TrainingError, UsageError
from dupmae.finetune import FinetuneConfig
from dupmae.heads import HeadSettings
from dupmae.packed import Layout, places
from dupmae.pretrain import PretrainConfig

ROOT = Path(__file__).parents[1]


def script(path: str) -> ModuleType:
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


ablation = script("recipes/ablation/ablation.py")


def config_of(command: list[str]) -> PretrainConfig | FinetuneConfig:
    kind = PretrainConfig if command[1] == "pretrain" else FinetuneConfig
    path = Path(command[command.index("--config") + 1])
    pairs = [word.removeprefix("--set=") for word in command if word.startswith("--set=")]
    return load_config(ROOT / path, kind, parse_overrides(pairs))


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    """Return an ablation of the default size, of two training files that hold nothing."""
    (tmp_path / "a.jsonl.xz").touch()
    (tmp_path / "b.jsonl").touch()
    return ablation.Ablation("start", tmp_path / "out", tmp_path, tmp_path)


def test_every_trained_row_reads_as_many_texts_in_as_many_steps(plan: Any) -> None:
    for row in ablation.ROWS:
        steps = texts = 0
        for ancestor in ablation.lineage(row):
            config = config_of(plan.command(ancestor, seed=3))
            negatives = config.data.negatives if isinstance(config, FinetuneConfig) else 0
            steps += config.trainer.steps
            texts += config.trainer.steps * config.trainer.batch_size * (1 + negatives)
            assert not config.trainer.steps or config.trainer.seed == 3
        if row.measured:
            expected = (240, 240 * 16) if ablation.is_trained(row) else (0, 0)
            assert (steps, texts) == expected, row.name
    assert sum(map(ablation.is_trained, map(ablation.BY_NAME.get, ablation.MEASURED))) == 11


def test_rows_differ_from_the_row_before_them_by_what_their_name_says(plan: Any) -> None:
    def changed(one: str, other: str) -> set[str]:
        before, after = (
            flat_config(config_of(plan.command(ablation.BY_NAME[name], 0))) for name in (one, other)
        )
        return {key for key in after if after[key] != before.get(key)}

    assert changed("alignment", "contrastive") == {"loss.contrastive"}
    assert changed("pretrain-code", "code+contrastive") == {"loss.contrastive"}
    assert changed("code+contrastive", "code+negatives") == {
        "data.negatives", "trainer.batch_size",
    }  # fmt: skip
    assert changed("code+negatives", "code+distillation") == {"loss.self_distillation"}
    assert changed("code", "retromae") == {"objective.bow_weight"}
    assert changed("code", "paper") == {"objective.variant"}
    assert changed("code", "bow") == {"objective.decoder"}


def test_heads_are_those_of_the_shipped_model_but_for_few() -> None:
    own, shipped = (
        flat_config(load_config(ROOT / f"recipes/{name}/heads.toml", FinetuneConfig, {}).heads)
        for name in ("ablation", "dupmae-mini")
    )
    assert {key for key in own if own[key] != shipped[key]} <= {
        "cls_attention", "frequency_length", "k_document", "k_query", "max_document_length",
        "max_query_length", "feedback", "expansion", "expand_documents", "k_expansion",
        "k_neighbours", "frequency_k1", "frequency_b", "borrowed_terms", "query_norm",
    }  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a start model, training files and a collection, all tiny."""
    chance = np.random.default_rng(8)

    def text(count: int) -> str:
        return " ".join(chance.choice(WORDS, count))

    def write(name: str, records: list[dict[str, str]]) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))

    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=384, num_hidden_layers=6, num_attention_heads=4,
        intermediate_size=16, max_position_embeddings=128,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        BertModel(config).save_pretrained(tmp_path / "start")  # as MiniLM: no head at all
    tiny_tokenizer().save_pretrained(tmp_path / "start")
    for name in ("one", "two"):
        write(f"train/{name}.jsonl", [{"query": text(3), "text": text(20)} for _ in range(50)])
    documents = [{"_id": f"d{number}", "text": text(20)} for number in range(30)]
    write("data/tiny/corpus.jsonl", documents)
    write("data/tiny/queries.jsonl", [{"_id": "q", "text": documents[4]["text"][:9]}])
    (tmp_path / "data/tiny/qrels").mkdir()
    (tmp_path / "data/tiny/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td4\t1\n")
    monkeypatch.chdir(ROOT)
    return tmp_path


@pytest.mark.slow
def test_rows_are_made_measured_and_not_made_again(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def run_here(command: list[str], _: object, *, trunk: bool = False) -> None:
        ran.append(command)
        assert trunk == (
            command[0] == "recipes/mine_negatives.py" or command[1] in ("finetune", "eval")
        )
        called = main if command[0] == "cli.py" else script(command[0]).main
        result = CliRunner().invoke(called, command[1:], catch_exceptions=False)
        assert result.exit_code == 0, result.output

    monkeypatch.setattr(ablation, "run", run_here)
    out = here / "out"
    places = ["--data", str(here / "data"), "--train", str(here / "train"), "--out", str(out)]
    given = [
        "--start", str(here / "start"), *places, "--collections", "tiny", "--rows", "40",
        "--only", "pretrain-code", "attention+all", "start-attention-noidf",
    ]  # fmt: skip
    ablation.main([*given, "--steps", "2"])
    assert [Path(c[0]).stem if c[0] != "cli.py" else c[1] for c in ran] == [
        "sample_rows", "finetune", "pretrain", "finetune", "eval", "finetune", "mine_negatives",
        "mine_negatives", "finetune", "eval", "finetune", "eval",
    ]  # fmt: skip

    results = json.loads((out / "results.json").read_text())
    pretrained, trained, untrained = results
    assert pretrained["trained_texts"] == {"blocks": 16, "documents": 16}
    assert [trained["row"], trained["seed"]] == ["attention+all", 0]
    assert [untrained["row"], untrained["seed"]] == ["start-attention-noidf", None]
    assert trained["trained_texts"] == {"blocks": 0, "documents": 2 * 16}
    assert untrained["trained_texts"] == {"blocks": 0, "documents": 0}
    report = json.loads((out / "seed-0/attention+all/eval/tiny/report.json").read_text())
    assert trained["hybrid"] == report["systems"]["hybrid"]["nDCG@10"]
    assert trained["model_seal"] == report["model_seal"] != untrained["model_seal"]
    assert "--start $MINILM" in trained["commands"][0]
    assert len(trained["commands"]) == 3

    mined = RowFile(out / "mined-40/one.jsonl", out)
    plain = RowFile(out / "rows-40/one.jsonl", out)
    assert len(mined) == len(plain) == 40
    for number in range(40):
        assert mined[number].query == plain[number].query
        assert mined[number].text == plain[number].text not in mined[number].negatives
        assert len(mined[number].negatives) == 1
    heads = load_model(out / "untrained/start-attention-noidf/model").model.heads
    assert isinstance(heads, HeadSettings)
    assert (heads.cls_attention, heads.corpus_idf, heads.max_document_length) == (True, 0.0, 128)
    assert not list(out.glob("**/index"))
    assert not list(out.glob("**/checkpoint.pt"))

    ran.clear()
    ablation.main([*given, "--steps", "2"])
    assert ran == []
    assert json.loads((out / "results.json").read_text()) == results
    with pytest.raises(UsageError, match=r"trainer\.steps=1.*trainer\.steps=2"):
        ablation.main([*given, "--steps", "4"])

    capsys.readouterr()
    ablation.main(["--table", "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| row | seeds | blocks + documents | tiny |")
    assert lines[2].startswith("| pretrain-code | 0 | 16 + 16 | ")
    assert lines[3].startswith("| attention+all | 0 | 0 + 32 | ")
    assert lines[4].startswith("| start-attention-noidf | any | 0 + 0 | ")
    assert len(lines) == 5


def test_the_table_shows_means_over_seeds_and_their_spread() -> None:
    def record(seed: int, collection: str, hybrid: float) -> dict[str, object]:
        texts = {"blocks": 1920, "documents": 1920}
        return {
            "row": "pretrain-code", "seed": seed, "collection": collection, "hybrid": hybrid,
            "dense": 0.25, "sparse": 1.0, "trained_texts": texts,
        }  # fmt: skip

    records = [
        record(0, "a", 0.5), record(0, "b", 0.25), record(1, "a", 0.75), record(1, "b", 0.5),
        record(2, "a", 1.0),
    ]  # fmt: skip
    row = ablation.table(records).splitlines()[2]
    # Seed 2 lacks a collection: (.375 + .625) / 2 over the others.
    assert row == (
        "| pretrain-code | 0, 1, 2 | 1,920 + 1,920 | .750 / .250 / 1.000 | .375 / .250 / 1.000 "
        "| .500 ± .125 |"
    )


def test_a_command_that_fails_ends_the_ablation(plan: Any) -> None:
    ablation.run(["-c", "import os; assert os.environ['OMP_NUM_THREADS'] == '1'"], plan)
    with pytest.raises(TrainingError, match="exit code 3 of: python -c"):
        ablation.run(["-c", "raise SystemExit(3)"], plan)


def places_of(mask: torch.Tensor) -> Iterator[torch.Tensor]:
    return map(torch.from_numpy, places(mask.sum(dim=1).numpy()))


def test_the_trunk_gives_what_the_whole_body_gives_and_reads_a_text_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = script("recipes/ablation/trunk.py")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=30, num_hidden_layers=3, **shape)
    model = BertModel(config, add_pooling_layer=False).eval()
    ids = torch.tensor([[2, 7, 8, 9, 3], [2, 6, 3, 0, 0]])
    mask = (ids > 0).long()
    expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
    kept = trunk.Trunk(2, tmp_path)
    monkeypatch.setattr(BertModel, "forward", BertModel.forward)  # given back at the end
    monkeypatch.setattr(Encoder, "load", Encoder.load)
    monkeypatch.setattr(torch_network, "read_body", torch_network.read_body)
    trunk.install(kept)
    below, above = [], []
    model.encoder.layer[0].register_forward_hook(lambda *seen: below.append(len(seen[1][0])))
    model.encoder.layer[2].register_forward_hook(lambda *seen: above.append(len(seen[1][0])))

    first = model(input_ids=ids[:1], attention_mask=mask[:1]).last_hidden_state
    both = model(input_ids=ids, attention_mask=mask).last_hidden_state
    again = model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(first, expected[:1])
    torch.testing.assert_close(both[mask.bool()], expected[mask.bool()])
    assert torch.equal(again, both)
    assert (below, above) == ([1, 1], [1, 2, 2])
    packed = torch_network.read_body(model, ids[mask.bool()], Layout((2, 5), *places_of(mask)))
    torch.testing.assert_close(packed, both[mask.bool()])
    assert (below, above) == ([1, 1], [1, 2, 2, 2])

    again.sum().backward()
    assert model.encoder.layer[2].output.dense.weight.grad is not None
    assert model.encoder.layer[1].output.dense.weight.grad is None

    other = BertModel(config, add_pooling_layer=False).eval()  # its lower layers are others
    wanted = other(input_ids=ids, attention_mask=mask).last_hidden_state
    monkeypatch.undo()
    whole = other(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(wanted[mask.bool()], whole[mask.bool()])
