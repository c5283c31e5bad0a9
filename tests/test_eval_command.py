"""Facts about `eval` as a command: its systems, files and exit codes, on a toy collection."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import pytrec_eval
from click.testing import CliRunner, Result
from lucene import skip_without_lucene
from tiny_model import tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model
from dupmae.cli import main
from dupmae.engine import read_manifest

WORDS = [first + second for first, second in product("kr", "aeio")]
SYSTEMS = "hybrid,dense,sparse,bm25,bm25-stem,rrf,minmax,convex"
TREC_NAMES = {
    "nDCG@10": "ndcg_cut_10",
    "R@10": "recall_10",
    "AP": "map",
    "RR": "recip_rank",
    "P@5": "P_5",
}


def toy(folder: Path, *, seed: int = 0, dev: bool = True) -> Path:
    """Write a collection of 30 documents, half of them like others, and 12 + 6 queries."""
    generator = random.Random(seed)
    texts = [" ".join(generator.choices(WORDS, k=4)) for _ in range(15)]
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{number}", "text": text} for number, text in enumerate(texts * 2)]
    queries = [
        {"_id": f"q{number}", "text": " ".join(generator.choices(WORDS, k=2))}
        for number in range(18)
    ]
    write_lines(folder / "corpus.jsonl", corpus)
    write_lines(folder / "queries.jsonl", queries)
    for split, numbers in (("test", range(12)), ("dev", range(12, 18 if dev else 12))):
        lines = [
            f"q{number}\td{generator.randrange(30)}\t{generator.choice((-1, 0, 1, 1, 2))}\n"
            for number in numbers
            for _ in range(4)
        ]
        unique = {tuple(line.split("\t")[:2]): line for line in lines}
        if unique:
            (folder / "qrels" / f"{split}.tsv").write_text("".join(unique.values()))
    return folder


def write_lines(path: Path, records: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["eval", *arguments])


def one_line(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    (line,) = result.stderr.strip().splitlines()
    for word in words:
        assert word in line


def test_every_run_file_gives_trec_eval_the_numbers_of_the_report(here: Path, model: Path) -> None:
    toy(here / "toy")
    measures = [part for name in TREC_NAMES for part in ("-m", name)]
    result = run("--beir", "toy", "--systems", SYSTEMS, "--model", str(model), "--json", *measures)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert list(report["systems"]) == SYSTEMS.split(",")
    with (here / "toy/qrels/test.tsv").open() as lines:
        qrels: dict[str, dict[str, int]] = {}
        for query_id, doc_id, grade in csv.reader(lines, delimiter="\t"):
            qrels.setdefault(query_id, {})[doc_id] = int(grade)
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, set(TREC_NAMES.values()))
    for system, values in report["systems"].items():
        with (here / "runs/eval/toy" / f"{system}.trec").open() as lines:
            by_query = evaluator.evaluate(pytrec_eval.parse_run(lines))
        for name, trec_name in TREC_NAMES.items():
            total = sum(by_query[query].get(trec_name, 0.0) for query in by_query)
            assert values[name] == pytest.approx(total / len(qrels), abs=5e-5), (system, name)


def test_fast_is_measured_on_an_index_with_a_graph_beside_hybrid(here: Path, model: Path) -> None:
    toy(here / "toy")
    options = ["--beir", "toy", "-k", "10", "-m", "nDCG@10", "--model", str(model), "--json"]
    plain = run(*options, "--systems", "hybrid")
    assert json.loads(plain.stdout)["notes"] == []
    assert not list(here.glob("runs/eval/toy/index/segments/*/hnsw"))
    report = json.loads(run(*options, "--systems", "hybrid,fast").stdout)
    assert report["notes"] == ["fast, at -k 10: 100.00% of the best 10 of hybrid found"]
    assert report["systems"]["fast"] == report["systems"]["hybrid"]
    (graph,) = here.glob("runs/eval/toy/index/segments/*/hnsw")
    assert run(*options, "--systems", "fast").exit_code == 0
    assert list(here.glob("runs/eval/toy/index/segments/*/hnsw")) == [graph]  # not built again


def test_an_index_whose_documents_borrow_otherwise_is_made_anew(here: Path) -> None:
    toy(here / "toy")
    options = ["--beir", "toy", "-k", "10", "-m", "nDCG@10", "--systems", "hybrid"]
    found = []
    for terms in (0, 3, 3, 0):
        model = tiny_model(expansion=0.0, borrowed_terms=terms)
        save_model(model, tiny_tokenizer(), here / "tiny", name="tiny")
        assert run(*options, "--model", "tiny").exit_code == 0
        found.append(read_manifest(here / "runs/eval/toy/index"))
    assert [manifest.borrow and manifest.borrow.terms for manifest in found] == [None, 3, 3, None]
    assert len({manifest.encoder_seal for manifest in found}) == 1
    assert found[1] == found[2]  # used again


def test_convex_is_tuned_on_another_split_or_left_out_in_a_line(here: Path, model: Path) -> None:
    toy(here / "with")
    toy(here / "without", dev=False)
    options = ["--systems", "dense,convex", "--model", str(model), "--json"]
    result = run("--beir", "with", "--beir", "without", *options)
    with_dev, without = json.loads(result.stdout)["collections"]
    assert list(with_dev["systems"]) == ["dense", "convex"]
    (note,) = with_dev["notes"]
    assert note.startswith("convex: weight")
    assert note.endswith("chosen on 6 queries of the split dev")
    assert list(without["systems"]) == ["dense"]
    assert without["notes"] == [
        "convex is left out: without has no dev or train split to choose its weight on"
    ]
    assert result.stderr.splitlines()[-2:] == [note, *without["notes"]]
    averages = json.loads(result.stdout)["averages"]["average"]
    both = [part["systems"]["dense"]["nDCG@10"] for part in (with_dev, without)]
    assert averages == {"dense": averages["dense"]}
    assert averages["dense"]["nDCG@10"] == pytest.approx(sum(both) / 2)


def test_runs_indexes_and_models_of_others_are_systems(here: Path, model: Path) -> None:
    toy(here / "toy")
    other = here / "other"
    save_model(tiny_model(expansion=0.0, k_document=1), tiny_tokenizer(), other, name="other")
    corpus = str(here / "toy/corpus.jsonl")
    for name, encoder in (("mine.index", model), ("other.index", other)):
        made = CliRunner().invoke(main, ["index", corpus, "--index", name, "--model", str(encoder)])
        assert made.exit_code == 0, made.output
    common = ["--beir", "toy", "--model", str(model), "--json"]
    first = json.loads(run(*common, "--systems", "hybrid").stdout)["systems"]["hybrid"]
    systems = [
        "hybrid",
        "index:mine.index",
        f"model:{other}",
        "index:other.index",
        "run:runs/eval/toy/hybrid.trec",
    ]
    values = json.loads(run(*common, "--systems", ",".join(systems)).stdout)["systems"]
    assert list(values) == systems
    assert values["index:mine.index"] == values["run:runs/eval/toy/hybrid.trec"] == first
    assert values[f"model:{other}"] == values["index:other.index"] != first
    # Without that model the index cannot be searched.
    one_line(run(*common, "--systems", "index:other.index"), 4, "other.index", "--model")


def test_bm25_alone_needs_no_model_and_no_index(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(here / "toy")
    monkeypatch.setattr("dupmae.commands.bench.load_encoder", lambda *_: pytest.fail("a model"))
    result = run("--beir", "toy", "--systems", "bm25", "--systems", "bm25-stem", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["model"], report["proven"], report["documents"]) == (None, None, 30)
    assert not (here / "runs/eval/toy/index").exists()


def test_lucene_and_models_of_sentence_transformers_are_asked_for_the_same_texts(
    here: Path,
) -> None:
    skip_without_lucene()
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    from test_sentence_index import sparse_model, static_model

    static_model().save("dense")
    sparse_model().save("sparse")
    folder = toy(here / "toy")
    (folder / "corpus.jsonl").write_text(
        '{"_id": "both", "title": "ba", "text": "bi"}\n{"_id": "one", "text": "ba be bo"}\n'
    )
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "bi ba \\ud800"}\n')
    (folder / "qrels/test.tsv").write_text("q\tboth\t1\n")
    systems = ["bm25-lucene", "st:dense", "st-sparse:sparse"]
    result = run("--beir", "toy", "--systems", ",".join(systems), "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["model"] is None
    assert {name: values["RR@10"] for name, values in report["systems"].items()} == dict.fromkeys(
        systems, 1.0
    )
    for name in ("bm25-lucene", "st-dense", "st-sparse-sparse"):
        lines = (here / f"runs/eval/toy/{name}.trec").read_text().splitlines()
        assert [line.split()[2] for line in lines] == ["both", "one"]


def test_a_missing_extra_is_told_in_a_line(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(here / "toy")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    result = run("--beir", "toy", "--systems", "bm25,st:folder")
    one_line(result, 2, "st:folder needs", "pip install 'dupmae[sentence-transformers]'")
    code = (
        "import sys; sys.modules['jnius_config'] = None\nfrom dupmae.cli import main\n"
        "main(['eval', '--beir', 'toy', '--systems', 'bm25-lucene'])"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert fresh.returncode == 1
    (line,) = fresh.stderr.splitlines()
    assert "pip install 'dupmae[lucene]'" in line


def test_statistics_are_against_the_first_system_or_the_one_named(here: Path) -> None:
    toy(here / "toy")
    common = ["--beir", "toy", "--systems", "bm25,bm25-stem"]
    statistics = json.loads(run(*common, "--json").stdout)["statistics"]
    assert statistics["baseline"] == "bm25"
    named = run(*common, "--json", "--baseline", "bm25-stem", "--seed", "7").stdout
    statistics = json.loads(named)["statistics"]
    assert (statistics["baseline"], statistics["seed"]) == ("bm25-stem", 7)
    assert {each["system"] for each in statistics["comparisons"]} == {"bm25"}
    one_line(run(*common, "--baseline", "rrf"), 2, "'rrf' is not among the systems bm25, bm25-stem")


def test_the_gate_passes_what_is_the_same_and_stops_a_fall(here: Path) -> None:
    folder = toy(here / "toy")
    (folder / "qrels/test.tsv").write_text("".join(f"q{n}\td{n}\t1\n" for n in range(12)))
    best, worst = here / "best.trec", here / "worst.trec"
    best.write_text("".join(f"q{n} Q0 d{n} 1 2 x\n" for n in range(12)))
    common = ["--beir", "toy", "--json", "-m", "RR", "--systems", "run:now.trec"]
    (here / "now.trec").write_bytes(best.read_bytes())
    assert run(*common).exit_code == 0
    (here / "runs/eval/toy/report.json").rename(here / "baseline.json")
    assert run(*common, "--gate", "baseline.json").exit_code == 0
    worst.write_text("".join(f"q{n} Q0 d29 1 2 x\n" for n in range(12)))
    (here / "now.trec").write_bytes(worst.read_bytes())
    result = run(*common, "--gate", "baseline.json")
    assert result.exit_code == 5
    assert "Error: RR of run:now.trec on toy fell from 1.0000 to 0.0000" in result.stderr
    assert json.loads(result.stdout)["systems"]["run:now.trec"]["RR"] == 0.0
    toy(here / "another")
    one_line(
        run("--beir", "another", "--systems", "bm25", "--json", "--gate", "baseline.json"),
        2, "baseline.json is of toy, which was not evaluated",
    )  # fmt: skip


def test_reports_are_written_as_csv_latex_and_html(here: Path) -> None:
    toy(here / "one")
    toy(here / "two", seed=1)
    files = ["--csv", "r.csv", "--per-query", "q.csv", "--latex", "r.tex", "--html", "r.html"]
    result = run("--beir", "one,two", "--systems", "bm25,bm25-stem", "-m", "RR", "-m", "AP", *files)
    assert result.exit_code == 0, result.output
    assert "average, mean" in result.stdout
    with (here / "r.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["collection"], row["system"], row["measure"]) for row in rows] == list(
        product(("one", "two"), ("bm25", "bm25-stem"), ("RR", "AP"))
    )
    with (here / "q.csv").open() as lines:
        queries = list(csv.DictReader(lines))
    assert len(queries) == 2 * 2 * 12
    for row in rows:
        own = [
            q
            for q in queries
            if (q["collection"], q["system"]) == (row["collection"], row["system"])
        ]
        mean = sum(float(query[row["measure"]]) for query in own) / 12
        assert mean == pytest.approx(float(row["value"]))
        assert float(row["lower"]) <= mean <= float(row["upper"])
        assert (row["p_t"] == "") == (row["system"] == "bm25")
    latex = (here / "r.tex").read_text()
    assert r"RR & one & two & average \\" in latex
    assert latex.count(r"\textbf") >= 3
    page = (here / "r.html").read_text()
    assert 'id="one"' in page
    assert 'id="two"' in page
    assert "average, mean over collections" in page


def test_cqadupstack_is_the_mean_of_its_parts(here: Path) -> None:
    for seed, part in enumerate(("android", "english")):
        toy(here / "data/cqadupstack" / part, seed=seed)
    result = run("--beir", "cqadupstack", "--data", "data", "--systems", "bm25", "--json")
    content = json.loads(result.stdout)
    parts = {part["collection"]: part["systems"]["bm25"] for part in content["collections"]}
    assert list(parts) == ["cqadupstack/android", "cqadupstack/english"]
    (mean,) = content["averages"].values()
    for measure, value in mean["bm25"].items():
        assert value == pytest.approx(sum(part[measure] for part in parts.values()) / 2)
    assert (here / "runs/eval/cqadupstack-android/report.json").is_file()


def test_the_report_counts_what_was_judged(here: Path) -> None:
    folder = toy(here / "toy")
    (folder / "qrels/test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq0\td1\t1\nq0\td1\t1\nq0\tgone\t3\nq0\td2\t-1\nq1\td3\t0\n"
    )
    report = json.loads(run("--beir", "toy", "--systems", "bm25", "--json").stdout)
    assert report["judgements"] == {
        "judged": 4,
        "relevant": 2,
        "graded_above_1": 1,
        "negative": 1,
        "repeated": 1,
        "of_unknown_documents": 1,
        "queries_without_relevant": 1,
    }


def test_any_folder_in_beirs_layout_is_a_collection(here: Path) -> None:
    folder = toy(here / "somewhere" / "mine")
    for name in (str(folder), "somewhere/mine"):
        result = run("--beir", name, "--systems", "bm25", "--json", "--split", "dev")
        report = json.loads(result.stdout)
        assert (report["collection"], report["split"], report["queries"]) == ("mine", "dev", 6)
    twice = run("--beir", "somewhere/mine", "--beir", str(folder), "--systems", "bm25", "--json")
    one_line(twice, 2, "two collections are called mine")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--systems", "bm52"], 2, ("no system 'bm52'", "did you mean bm25?", "run:FILE")),
        (["--systems", "run:"], 2, ("no system 'run:'",)),
        (["--systems", "st:"], 2, ("no system 'st:'", "st-sparse:MODEL")),
        (["--systems", "run:none.trec"], 1, ("cannot read none.trec",)),
        (["--systems", "run:other.trec"], 1, ("answers none of the 12 queries of toy test",)),
        (["--systems", "index:none"], 3, ("none",)),
        (["--systems", "bm25", "-m", "nDGC@10"], 2, ("nearest name is 'nDCG'",)),
        (["--systems", "bm25", "-m", "R@2000"], 2, ("raise k",)),
        (["--systems", "bm25", "--gate", "none.json"], 1, ("cannot read none.json",)),
        (["--systems", "no-feedback"], 2, ("model tiny has no feedback to leave out",)),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_line(
    here: Path, model: Path, options: list[str], code: int, words: tuple[str, ...]
) -> None:
    toy(here / "toy")
    (here / "other.trec").write_text("strange Q0 d1 1 2 x\n")
    one_line(run("--beir", "toy", "--json", "--model", str(model), *options), code, *words)


def test_a_run_that_lacks_queries_is_measured_with_a_note(here: Path) -> None:
    toy(here / "toy")
    (here / "part.trec").write_text("q0 Q0 d1 1 2 x\n")
    result = run("--beir", "toy", "--systems", "run:part.trec", "--json")
    assert json.loads(result.stdout)["notes"] == [
        "run:part.trec lacks 11 queries, which count as 0"
    ]


def test_an_index_of_other_documents_is_refused(here: Path, model: Path) -> None:
    toy(here / "toy")
    toy(here / "another", seed=1)
    made = ["index", "another/corpus.jsonl", "--index", "i", "--model", str(model)]
    assert CliRunner().invoke(main, made).exit_code == 0
    result = run("--beir", "toy", "--systems", "index:i", "--json", "--model", str(model))
    one_line(result, 1, "index i holds other documents than toy/corpus.jsonl")
