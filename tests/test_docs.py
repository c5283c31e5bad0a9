"""The pages in `docs/` tell the truth: what they show runs and gives what they say."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from fakes import ExactDense, Forward, NoisySparse

from dupmae.cli import main
from dupmae.encoder import Encoder
from dupmae.engine import SearchEngine, Weights, build_index
from dupmae.engine.fusion import Stores, fuse
from dupmae.eval.demo import demo_documents
from dupmae.onnx_export import export_onnx
from dupmae.types import Document, Encoded, SparseVectors

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[list[str]]:
    """Return the words after `python cli.py` of each command that a page shows."""
    lines = "".join(blocks(page, "sh")).splitlines()
    shown = [shlex.split(line.split(" > ")[0].split(" < ")[0]) for line in lines]
    after = [words[words.index("cli.py") + 1 :] for words in shown if "cli.py" in words]
    assert after
    return after


@pytest.mark.parametrize("page", ["tutorial.md", "terminal.md", "filters.md"])
def test_the_commands_of_the_pages_are_commands(page: str) -> None:
    for words in commands(page):
        command = main.commands[words[0]]
        with command.make_context(words[0], words[1:]) as context:
            assert isinstance(context, click.Context)


@pytest.mark.slow
def test_the_tutorial_runs_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On four modules of the demo corpus, which are enough for what the page shows."""
    modules = {"bz2", "gzip", "lzma", "zipfile"}
    few = [document for document in demo_documents() if document.metadata["module"] in modules]
    monkeypatch.setattr("dupmae.eval.demo_documents", lambda: iter(few))
    monkeypatch.chdir(tmp_path)
    (mine,) = blocks("tutorial.md", "json")
    Path("mine.jsonl").write_text(mine, encoding="utf-8")
    shown = {}
    for words in commands("tutorial.md"):
        if words != ["search"]:  # the prompt, which test_prompt.py opens in a terminal
            result = CliRunner().invoke(main, words)
            assert result.exit_code == 0, (words, result.stderr)
            shown[" ".join(words)] = result.stdout
    first, second = re.findall(r"^ +\d\. .* (\S+)$", shown["search compress bytes -k 2"], re.M)
    assert {first, second} == {"gzip.open", "lzma.compress"}
    assert "\nproven: none of the other " in shown["search compress bytes -k 2"]
    why = shown["explain compress bytes gzip.compress -k 2"]
    assert why.startswith("gzip.compress: rank 3 of ")
    assert "not among the first 2" in why
    assert "##press" in why
    assert "compression " in why
    assert "  borrowed from its neighbours" in why
    narrow = shown[
        'search compress bytes --where module = "lzma" and kind != "method" --facets kind'
    ]
    assert 'kind: "function" (3), ' in narrow
    own = shown["search what is good for my skeleton? --index mine.index -k 1 --json"]
    assert '"id": "bone"' in own
    assert re.search(r"^documents +2$", shown["info --index mine.index"], re.M)


def test_the_reference_of_the_commands_is_current() -> None:
    script = runpy.run_path(str(DOCS / "make_reference.py"))
    page = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    assert script["reference"]() == page, "run python docs/make_reference.py"


def test_the_pictures_of_the_proof_are_current() -> None:
    script = runpy.run_path(str(DOCS / "make_pictures.py"))
    drawn = script["pictures"]()
    assert len(drawn) == 3
    for name, picture in drawn.items():
        assert (DOCS / "pictures" / name).read_text() == picture, "run docs/make_pictures.py"


def test_the_example_of_the_proof_is_what_fusion_does() -> None:
    page = (DOCS / "proof.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-H]) \| (-?\d+) \| (\d+) \| (-?\d+) \|$", page, flags=re.M)
    names = "".join(row[0] for row in rows)
    dense, sparse, score = (np.array([int(row[part]) for row in rows]) for part in (1, 2, 3))
    assert (names, (dense + sparse).tolist()) == ("ABCDEFGH", score.tolist())

    def forward() -> Forward:
        sparse_rows = [([0], [value]) if value else ([], []) for value in sparse]
        vectors = SparseVectors.from_rows(sparse_rows)  # type: ignore[arg-type]
        return Forward(dense[:, None].astype(np.float32), vectors)

    nothing, order = np.zeros(len(rows)), np.arange(len(rows))
    store = forward()
    stores = Stores(
        store, ExactDense(forward(), nothing, order), NoisySparse(forward(), nothing, order)
    )
    one = SparseVectors.from_rows([([0], [1.0])])  # type: ignore[list-item]
    query = Encoded(np.ones((1, 1), np.float32), one)
    fused = fuse(query, stores, 2, Weights(), first_depth=1)
    assert "".join(names[ordinal] for ordinal in fused.ranking.ordinals) == "BD"
    assert (fused.proven, fused.bound, fused.depth) == (True, 12, 4)
    assert "`bound` 12 and `depth` 4" in page
    (scored,) = store.scored
    assert "".join(names[ordinal] for ordinal in scored) == "ABCDEG"

    rounds = re.findall(r"^\| (\d) \| ([A-H ]+) \| (\d+) \| (\d+) \| (yes|no) \|$", page, re.M)
    by_dense, by_sparse = np.argsort(-dense), np.argsort(-sparse)
    for place, (depth, seen, bound, kth, proven) in enumerate(rounds, start=1):
        union = sorted({*by_dense[:place], *by_sparse[:place]})
        assert (int(depth), seen.replace(" ", "")) == (place, "".join(names[i] for i in union))
        assert int(bound) == dense[by_dense[place - 1]] + sparse[by_sparse[place - 1]]
        assert int(kth) == sorted(score[union])[-2]
        assert (proven == "yes") == (int(kth) >= int(bound))
    assert [line[-1] for line in rounds] == ["no", "no", "no", "yes"]


@contextmanager
def closing_engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the engines that an example leaves open, as the end of a program would."""
    opened: list[SearchEngine] = []
    open_engine = SearchEngine.open

    def remembering(*arguments: object, **options: object) -> SearchEngine:
        opened.append(open_engine(*arguments, **options))  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr(SearchEngine, "open", remembering)
    yield
    for engine in opened:
        engine.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("langchain", "langchain_core"),
        ("llama_index", "llama_index.core"),
        ("haystack", "haystack"),
    ],
)
def test_the_examples_of_the_retrievers_run(
    module: str,
    library: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    monkeypatch.chdir(tmp_path)
    where = {"year": 2020}
    document = Document("bone", "Calcium and vitamin D keep bones strong.", "Bones", where)
    build_index([document], Encoder.load(threads=1), "dupmae.index")
    imported = f"from dupmae.integrations.{module} import"
    (code,) = (found for found in blocks("integrations.md", "python") if imported in found)
    with closing_engines(monkeypatch):
        exec(compile(code, "integrations.md", "exec"), {})
    assert capsys.readouterr().out.startswith("bone")


def test_the_example_of_an_exported_graph_runs(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_onnx(model, tmp_path / "model-onnx")
    monkeypatch.chdir(tmp_path)
    (code,) = (found for found in blocks("encoding.md", "python") if "InferenceSession" in found)
    found: dict[str, Any] = {}
    exec(compile(code, "encoding.md", "exec"), found)
    assert [len(found[name]) for name in ("dense", "log_gain", "sparse")] == [2, 2, 2]
    dense = Encoder.load("model-onnx").encode_documents(["a text"]).dense
    assert found["dense"][:1] == pytest.approx(dense, abs=1e-5)
