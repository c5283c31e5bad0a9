"""How documents borrow terms: who says so, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import FakeEncoder
from random_corpus import random_documents

from dupmae.cli import main
from dupmae.engine import Borrow, VectorFiles, build_index, export_index, read_manifest
from dupmae.errors import DataError, UsageError
from dupmae.indexes.tensors import Tensor, write_tensors

SETTINGS = Borrow(neighbours=4, terms=5, spread=0.2)
DOCUMENTS = random_documents(300)


def encoder() -> FakeEncoder:
    return FakeEncoder(corpus_idf=True)


def test_other_settings_are_refused_where_an_index_is(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    build_index(DOCUMENTS, encoder(), folder, borrow=SETTINGS)
    message = "has 5 borrowed terms of 4 neighbours, spread 0.2, not 30 borrowed terms of 10"
    with pytest.raises(UsageError, match=message):
        build_index(DOCUMENTS[:2], encoder(), folder, borrow=Borrow())
    build_index(DOCUMENTS, encoder(), tmp_path / "plain")
    with pytest.raises(UsageError, match="has no borrowed terms, not 30 borrowed terms"):
        build_index(DOCUMENTS[:2], encoder(), tmp_path / "plain", borrow=Borrow())
    build_index(DOCUMENTS[:5], encoder(), folder, replace=True)
    assert read_manifest(folder).borrow is None


def test_an_encoder_says_how_documents_borrow_unless_an_index_does(tmp_path: Path) -> None:
    lending = FakeEncoder(borrowed_terms=7)

    def built(name: str, borrow: Borrow | bool | None = None) -> Borrow | None:
        build_index(DOCUMENTS[:20], lending, tmp_path / name, borrow=borrow)
        return read_manifest(tmp_path / name).borrow

    assert built("usual") == built("usual", True) == built("usual", Borrow(terms=7))
    assert built("usual") == Borrow(terms=7)
    assert built("asked", True) == Borrow(terms=7)
    assert built("own", SETTINGS) == built("own") == built("own", True) == SETTINGS
    assert built("none", False) is built("none") is built("none", False) is None
    with pytest.raises(UsageError, match="has no borrowed terms, not 7 borrowed terms of 10"):
        built("none", True)
    with pytest.raises(UsageError, match=r"has 7 borrowed terms .*, not none; add to it"):
        built("usual", False)
    build_index(DOCUMENTS[:20], encoder(), tmp_path / "asked", replace=True)
    assert read_manifest(tmp_path / "asked").borrow is None


@pytest.mark.parametrize("borrow", [SETTINGS, False])
def test_exported_vectors_say_how_documents_borrow(borrow: Borrow | bool, tmp_path: Path) -> None:
    lending = FakeEncoder(borrowed_terms=7)
    build_index(DOCUMENTS[:20], lending, tmp_path / "index", borrow=borrow)
    export_index(tmp_path / "index", tmp_path / "out.npz")
    for given in (None, lending):
        with VectorFiles.open([tmp_path / "out.npz"], given) as vectors:
            build_index(DOCUMENTS[:20], vectors, tmp_path / "again", replace=True)
        assert read_manifest(tmp_path / "again").borrow == (borrow or None)


def test_vectors_that_say_nothing_borrow_as_the_encoder_does(tmp_path: Path) -> None:
    lending = FakeEncoder(borrowed_terms=7)
    vectors = lending.encode_documents([document.text for document in DOCUMENTS[:20]])
    path = tmp_path / "made.npz"
    lines = [json.dumps({"_id": document.doc_id}) for document in DOCUMENTS[:20]]
    path.with_suffix(".jsonl").write_text("\n".join(lines))
    sparse = vectors.sparse
    arrays = {"dense": vectors.dense, "indptr": sparse.indptr, "terms": sparse.terms}
    np.savez(path, weights=sparse.weights, **arrays)
    with VectorFiles.open([path], lending) as files:
        assert files.borrow == Borrow(terms=7)
    tensors = [
        Tensor(n, a.dtype, a.shape, [a]) for n, a in [*arrays.items(), ("weights", sparse.weights)]
    ]
    wrong = ("", "7", "null", '{"terms": 0}', '{"terms": 1.5}', '{"spread": "x"}', '{"some": 1}')
    for said in (*wrong, "[" * 100_000):
        write_tensors(path, tensors, {"borrow": said})
        with pytest.raises(DataError, match=r'borrow must be like .*"terms": 30.*, found'):
            VectorFiles.open([path], lending)


@pytest.mark.parametrize("settings", [{"neighbours": 0}, {"terms": 0}, {"spread": 0.0}])
def test_settings_that_borrow_nothing_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="at least 1 neighbour"):
        Borrow(**settings)  # type: ignore[arg-type]


def test_the_command_borrows_and_explain_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts = {
        "sun": "Skin makes vitamin D in sunlight.",
        "bone": "Vitamin D keeps bones strong.",
        "milk": "Milk gives bones calcium.",
    }
    lines = [json.dumps({"_id": name, "text": text}) for name, text in texts.items()]
    Path("corpus.jsonl").write_text("\n".join(lines))
    for command in (
        ["index", "corpus.jsonl", "--borrow"],
        ["explain", "calcium", "bone", "--json"],
    ):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
    terms = {term["term"]: term for term in json.loads(done.stdout)["terms"]}
    assert terms["calcium"]["borrowed"]
    assert not terms["bones"]["borrowed"] if "bones" in terms else True
    done = CliRunner().invoke(main, ["explain", "calcium", "bone"])
    assert "borrowed from its neighbours" in done.stdout
    assert "up to 32 terms, of 10 neighbours" in CliRunner().invoke(main, ["info"]).stdout
    assert json.loads(CliRunner().invoke(main, ["info", "--json"]).stdout)["borrow"] == {
        "neighbours": 10, "terms": 32, "spread": 0.1
    }  # fmt: skip
