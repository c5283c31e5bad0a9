"""Adapting gives another model, the same for the same corpus, and goes on where it was stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from tiny_model import VOCABULARY, WORDS, tiny_model, tiny_tokenizer

from dupmae import adapt as module
from dupmae import trainer
from dupmae.adapt import Adapted, AdaptSettings, adapt, make_rows, take_in_idf
from dupmae.checkpoint import load_model, save_model
from dupmae.cli import main
from dupmae.config import load_config
from dupmae.data import RowFile
from dupmae.encoder import Encoder
from dupmae.errors import DataError, UsageError
from dupmae.stages import finetune_config, pretrain_config
from dupmae.torch_encoder import TorchEncoder
from dupmae.types import CorpusStatistics, Document

HEADS: dict[str, object] = {
    "dense_dim": 32, "cls_attention": True, "corpus_idf": 1.0, "normalize_query_terms": True,
    "expand_documents": False, "k_neighbours": 3,
}  # fmt: skip
SMALL = {
    "pretrain.batch_size": 8,
    "finetune.batch_size": 8,
    "finetune.passes": 1.0,
    "finetune.document_length": 24,
    "checkpoint_every": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in a fixed order, so that runs can be compared bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "tiny"
    model = tiny_model(**HEADS)
    assert model.training_idf is not None
    chance = torch.Generator().manual_seed(1)
    model.training_idf.data = 1 + 4 * torch.rand(len(VOCABULARY), generator=chance)
    save_model(model, tiny_tokenizer(), folder, name="tiny")
    return folder


def make_documents(count: int = 30) -> list[Document]:
    """Return documents of twelve words, every third without a title."""
    chance = np.random.default_rng(2)
    return [
        Document(
            str(number),
            " ".join(chance.choice(WORDS, 12)),
            " ".join(chance.choice(WORDS, 2)) if number % 3 else "",
        )
        for number in range(count)
    ]


DOCUMENTS = make_documents()


def settings(**overrides: Any) -> AdaptSettings:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(None, AdaptSettings, SMALL | dotted)


@pytest.fixture(scope="module")
def adapted(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    folder = tmp_path_factory.mktemp("adapted") / "out"
    return adapt(DOCUMENTS, start, folder, settings(), corpus="notes.jsonl")


def test_the_new_model_has_another_seal_and_serves(adapted: Adapted, start: Path) -> None:
    encoder = Encoder.load(adapted.model)
    assert encoder.seal == adapted.seal != adapted.start_seal == Encoder.load(start).seal
    assert encoder.name == "tiny-adapted"
    assert len(encoder.encode_documents(["ba be"])) == 1


def test_both_stages_change_what_they_are_meant_to(adapted: Adapted) -> None:
    folder = adapted.model.parent
    places = (folder / "0-start", folder / "1-pretrain/model", adapted.model)
    before, between, after = [dict(load_model(p).model.named_parameters()) for p in places]
    first = {name for name in before if not torch.equal(before[name], between[name])}
    second = {name for name in before if not torch.equal(between[name], after[name])}
    upper = "lm.bert.encoder.layer.1."
    assert all(name.startswith((upper, "lm.cls.")) for name in first)
    assert any(name.startswith(upper) for name in first)
    assert not any(name.startswith("lm.bert.") for name in second)
    assert {"cls_projection.weight", "query_term_weight", "cls_attention.value.weight"} <= second


def test_the_card_says_to_what_the_model_was_adapted(adapted: Adapted) -> None:
    card = (adapted.model / "README.md").read_text(encoding="utf-8")
    assert "adapted to notes.jsonl" in card
    assert "30 documents" in card
    assert f"{adapted.before['sum']:.3f} → {adapted.after['sum']:.3f}" in card
    assert adapted.start_seal in card
    assert "license" not in card.split("---")[1]


def test_rows_ask_for_a_text_by_its_own_title_or_by_a_span_of_it() -> None:
    long = " ".join(WORDS)
    documents = [
        Document("own", "ba be bi bo bu by da de di do", "da  de"),
        Document("none", "ba be bi bo bu by da de di do"),
        Document("shared", "fa fe fi fo fu fy ga ge gi go", "ka ke"),
        Document("shared too", "ha he hi ho hu hy la le li lo", "KA KE"),
        Document("short", "ba be bi bo bu by da", "ma me"),
        Document("long", long, "ma"),
    ]
    rows = make_rows(documents, 24, seed=0)
    assert list(rows) == [0, 1, 2, 3, 5]
    assert (rows[0].query, rows[0].text) == ("da de", documents[0].text)
    for number in (1, 2, 3):
        query, rest = rows[number].query.split(), rows[number].text.split()
        assert 3 <= len(query) <= 5
        words = documents[number].text.split()
        place = words.index(query[0])
        assert words == [*rest[:place], *query, *rest[place:]]
    assert rows[5].text == " ".join(WORDS[:18])
    assert make_rows(documents, 24, seed=0) == rows != make_rows(documents, 24, seed=1)


def test_held_out_documents_are_in_no_training_text(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    original = module._probe

    def probe(loaded: Any, pairs: Any, given: Any, when: str) -> dict[str, float]:
        seen[when] = pairs
        return original(loaded, pairs, given, when)

    def pretrain(_config: Any, _folder: Path, *, texts: list[str]) -> None:
        seen["texts"] = texts
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_probe", probe)
    monkeypatch.setattr(module, "pretrain", pretrain)
    with pytest.raises(KeyboardInterrupt):
        adapt(DOCUMENTS, start, tmp_path / "out", settings())
    rows = RowFile(tmp_path / "out/rows.jsonl", tmp_path)
    pairs = {(rows[number].query, rows[number].text) for number in range(len(rows))}
    assert len(seen["before"]) == 3
    assert len(rows) == len(seen["texts"]) == 27
    assert not pairs & set(seen["before"])
    assert not any(
        query in seen["texts"] or text in seen["texts"] for query, text in seen["before"]
    )


def test_the_same_again_ends_with_the_same_model_wherever_it_was_stopped(
    adapted: Adapted, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0
    original = trainer._Loop._take_step

    def stopping(loop: Any) -> dict[str, float]:
        nonlocal taken
        taken += 1
        if taken in (3, 6):  # the last of three steps of stage 1, the second of three of stage 2
            raise KeyboardInterrupt
        return original(loop)

    def run() -> Adapted:
        often = settings(checkpoint_every=1)
        return adapt(DOCUMENTS, start, tmp_path / "out", often, corpus="notes.jsonl")

    monkeypatch.setattr(trainer._Loop, "_take_step", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run()
    result = run()
    assert replace(result, model=adapted.model) == adapted
    assert taken == 8, "six steps, two of which were begun twice"
    assert (run(), taken) == (result, 8), "what is complete is not trained again"


@pytest.mark.parametrize(("count", "steps"), [(20, (2, 2)), (120, (14, 14)), (4000, (120, 400))])
def test_steps_grow_with_the_corpus_up_to_a_cap(
    count: int, steps: tuple[int, int], tmp_path: Path
) -> None:
    start = module.LoadedModel(tiny_model(**HEADS), tiny_tokenizer(), "tiny", ())
    rows = count - count // 10
    first = pretrain_config(settings(), start, tmp_path, rows)
    second = finetune_config(settings(), start, tmp_path, tmp_path, rows)
    assert (first.trainer.steps, second.trainer.steps) == steps


def test_the_body_teaches_only_models_that_speak_through_the_mean_of_its_states(
    tmp_path: Path,
) -> None:
    for heads, is_taught in ((HEADS, True), (HEADS | {"cls_attention": False}, False)):
        start = module.LoadedModel(tiny_model(**heads), tiny_tokenizer(), "tiny", ())
        loss = finetune_config(settings(), start, tmp_path, tmp_path, 30).loss
        assert bool(loss.alignment and loss.teacher_sum and loss.late_scale) == is_taught
        assert loss.needs_cosine == is_taught
        assert loss.contrastive > 0


def test_a_model_without_attention_of_cls_is_adapted_too(tmp_path: Path) -> None:
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "plain", name="plain")
    result = adapt(DOCUMENTS, tmp_path / "plain", tmp_path / "out", settings(pretrain__passes=0.0))
    assert result.pretrain_steps == 0 < result.finetune_steps
    assert not (tmp_path / "out" / "1-pretrain").exists()
    assert result.seal != result.start_seal


@pytest.mark.parametrize("common", [40, 2000])
def test_with_the_corpus_idf_in_its_weights_a_model_scores_the_corpus_as_before(
    start: Path, common: int
) -> None:
    texts = [document.content for document in DOCUMENTS] + ["ba"] * common
    ids = [set(text) for text in tiny_tokenizer()(texts)["input_ids"]]
    frequency = [sum(term in own for own in ids) for term in range(len(VOCABULARY))]
    statistics = CorpusStatistics(len(texts), np.array(frequency))
    # Which terms of the corpus expand a query is known to search alone.
    own_terms = replace(tiny_model(**HEADS).heads, expansion=0.0)
    changed = load_model(start, heads=own_terms)
    take_in_idf(changed, texts)
    before = Encoder.load(start, settings={"expansion": 0.0})
    after = TorchEncoder(changed.model, changed.tokenizer, "changed")
    queries = [" ".join(WORDS[place : place + 20]) for place in (0, 30, 60)]
    expected = before.encode_queries(queries, statistics).sparse
    found = after.encode_queries(queries, statistics).sparse
    np.testing.assert_array_equal(found.terms, expected.terms)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-4)
    assert not np.allclose(before.encode_queries(queries).sparse.weights[:9], found.weights[:9])
    if common == 40:  # no term is in nearly all texts, and training ranks as search does
        for trained, searched in zip(after.encode_queries(queries).sparse, expected, strict=True):
            in_training, in_search = (dict(zip(*row, strict=True)) for row in (trained, searched))
            held = [t for t in in_training.keys() & in_search.keys() if frequency[t]]
            ratios = np.array([in_training[t] / in_search[t] for t in held])
            assert len(ratios) > 1
            np.testing.assert_allclose(ratios, ratios[0], rtol=1e-4)


def run_command(*arguments: str) -> Result:
    given = [f"--set={key}={value}" for key, value in SMALL.items()]
    return CliRunner().invoke(main, ["adapt", *arguments, *given])


def write_corpus(path: Path, documents: list[Document]) -> Path:
    lines = [{"_id": d.doc_id, "title": d.title, "text": d.text} for d in documents]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_command_prints_the_model_and_both_probes_as_one_line(
    adapted: Adapted, start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = write_corpus(tmp_path / "notes.jsonl", DOCUMENTS)
    result = run_command(str(corpus), "--model", str(start), "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    answer = json.loads(line)
    assert answer == asdict(adapted) | {"model": str(tmp_path / "out" / "model")}
    for when, measures in (("before", adapted.before), ("after", adapted.after)):
        assert set(measures) == {"sum", "dense", "sparse"}
        assert f"{when}: sum {measures['sum']:.3f}" in caplog.text
    kept = load_config(tmp_path / "out" / "adapt.toml", AdaptSettings, {})
    assert kept == settings()


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("empty corpus", 1, "holds no documents"),
        ("19 documents", 1, "19 documents"),
        ("no text", 1, "0 documents"),
        ("file", 2, "is a file"),
        ("other files", 2, "thesis.txt"),
        ("an index", 2, "MANIFEST.json"),
        ("bare encoder", 1, "dupmae.json"),
        ("incomplete heads", 1, "W_cls"),
        ("too many layers", 2, "has 2 layers"),
        ("unknown setting", 2, "pretrain.passes"),
        ("nothing to do", 2, "nothing would change"),
        ("torchrun", 2, "one process"),
    ],
)
def test_bad_input_is_one_clear_line(
    kind: str, code: int, words: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = {"empty corpus": 0, "19 documents": 19}.get(kind, 30)
    documents = [replace(d, text="ba") if kind == "no text" else d for d in DOCUMENTS[:count]]
    corpus, out, model = write_corpus(tmp_path / "notes.jsonl", documents), tmp_path / "out", start
    if kind == "file":
        out.touch()
    if kind in ("other files", "an index"):
        out.mkdir()
        (out / "model").mkdir()
        (out / ("thesis.txt" if kind == "other files" else "MANIFEST.json")).touch()
    if kind in ("bare encoder", "incomplete heads"):
        model = shutil.copytree(start, tmp_path / "model")
        heads = load_file(model / "heads.safetensors")
        del heads["cls_projection.weight"]
        save_file(heads, model / "heads.safetensors")
        if kind == "bare encoder":
            (model / "dupmae.json").unlink()
    if kind == "torchrun":
        monkeypatch.setenv("WORLD_SIZE", "2")
    further = {
        "too many layers": ["--set=pretrain.layers=3"],
        "unknown setting": ["--set=pretrain.pases=3"],
        "nothing to do": ["--set=pretrain.passes=0", "--set=finetune.passes=0.0"],
    }.get(kind, [])
    before = sorted(tmp_path.rglob("*"))
    given = [f"--set={key}={value}" for key, value in SMALL.items() if key != "finetune.passes"]
    result = CliRunner().invoke(
        main, ["adapt", str(corpus), "--model", str(model), "--out", str(out), *given, *further]
    )
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before, "nothing was written"


def test_an_adaptation_is_not_gone_on_with_from_anything_else(
    adapted: Adapted, start: Path, tmp_path: Path
) -> None:
    folder = adapted.model.parent
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    other = tmp_path / "other"
    save_model(tiny_model(**HEADS), tiny_tokenizer(), other, name="other")
    with pytest.raises(DataError, match="other documents"):
        adapt(DOCUMENTS[1:], start, folder, settings())
    with pytest.raises(DataError, match="another seed"):
        adapt(DOCUMENTS, start, folder, settings(seed=1))
    with pytest.raises(UsageError, match="another model than other"):
        adapt(DOCUMENTS, other, folder, settings())
    with pytest.raises(UsageError, match=r"trainer\.learning_rate = 0\.0001, not 0\.01"):
        adapt(DOCUMENTS, start, folder, settings(finetune__learning_rate=1e-2))
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    # A finished stage is opened again before the next is looked at, and its model written anew.
    assert all("1-pretrain" in str(path) for path in changed)
