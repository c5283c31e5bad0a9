from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder
from tiny_model import tiny_model, tiny_tokenizer

from dupmae.encoder import Encoder
from dupmae.engine import SearchEngine, VectorFiles, build_index, delete_documents, read_manifest
from dupmae.engine.canaries import (
    CANARY_TEXTS,
    TOLERANCE,
    check_canaries,
    drifts,
    make_canaries,
)
from dupmae.engine.export import export_index
from dupmae.engine.manifest import write_manifest
from dupmae.errors import SealError
from dupmae.hardware import cpu_features, describe_cpu
from dupmae.torch_encoder import TorchEncoder
from dupmae.types import CorpusStatistics, Document, Encoded, SparseVectors

DOCUMENTS = [Document("a", "whale ship"), Document("b", "the quick dog")]


class Drifted(FakeEncoder):
    """An encoder of the same seal whose query vectors are off by a part of their length."""

    def __init__(self, *, dense: float = 0.0, sparse: float = 0.0, runtime: str = "") -> None:
        super().__init__()
        self.runtime = runtime
        self.asked = 0
        self._dense, self._sparse = dense, sparse

    def encode_queries(self, texts, corpus: CorpusStatistics | None = None) -> Encoded:
        self.asked += 1
        found = super().encode_queries(texts, corpus)
        weights = (found.sparse.weights * (1 + self._sparse)).astype(np.float32)
        return Encoded(
            (found.dense * (1 + self._dense)).astype(np.float32),
            SparseVectors(found.sparse.indptr, found.sparse.terms, weights),
        )


@pytest.fixture
def index(tmp_path: Path) -> Path:
    build_index(DOCUMENTS, Drifted(runtime="chips of one kind"), tmp_path / "my.index")
    return tmp_path / "my.index"


def test_the_manifest_holds_what_the_encoder_made_of_the_texts(index: Path) -> None:
    canaries = read_manifest(index).canaries
    assert canaries == make_canaries(Drifted(runtime="chips of one kind"))
    assert [canary.text for canary in canaries.texts] == list(CANARY_TEXTS)
    expected = FakeEncoder().encode_queries(CANARY_TEXTS)
    for row, canary in enumerate(canaries.texts):
        assert np.array_equal(canary.vectors().dense[0], expected.dense[row])
        for one, two in zip(canary.vectors().sparse.row(0), expected.sparse.row(row), strict=True):
            assert np.array_equal(one, two)


@pytest.mark.parametrize("part", ["dense", "sparse"])
def test_a_runtime_that_makes_other_vectors_is_refused_with_the_cure(
    index: Path, part: str
) -> None:
    other = Drifted(**{part: 5 * TOLERANCE}, runtime="other chips")
    for use in (
        lambda: SearchEngine.open(index, other),
        lambda: build_index([Document("c", "sea")], other, index),
    ):
        with pytest.raises(SealError) as caught:
            use()
        said = str(caught.value)
        assert caught.value.exit_code == 4
        for word in ("off by 0.005", "chips of one kind", "other chips", "--replace", str(index)):
            assert word in said
        assert "\n" not in said
    assert read_manifest(index).generation == 1
    build_index(DOCUMENTS, other, index, replace=True)
    SearchEngine.open(index, other).close()


@pytest.mark.parametrize("part", ["dense", "sparse"])
def test_rounding_is_no_drift(index: Path, part: str) -> None:
    SearchEngine.open(index, Drifted(**{part: TOLERANCE / 2}, runtime="other")).close()


def test_vectors_that_are_no_numbers_are_drift(index: Path) -> None:
    with pytest.raises(SealError, match="off by nan"):
        SearchEngine.open(index, Drifted(dense=np.nan))


def test_the_same_runtime_is_trusted_and_another_looked_at_when_it_opens(index: Path) -> None:
    same, other, silent = Drifted(runtime="chips of one kind"), Drifted(runtime="x"), Drifted()
    for encoder, looks in ((same, 0), (other, 2), (silent, 2)):  # alone and among more
        with SearchEngine.open(index, encoder) as engine:
            delete_documents(index, ["a"], missing_ok=True)
            engine.reload()
        assert encoder.asked == looks


def test_a_reload_looks_at_other_canaries(index: Path) -> None:
    encoder = Drifted(runtime="x")
    with SearchEngine.open(index, encoder) as engine:
        drifted = Drifted(dense=5 * TOLERANCE, runtime="y")
        build_index(DOCUMENTS, drifted, index, replace=True)
        with pytest.raises(SealError, match="made on y, this is x"):
            engine.reload()
        assert engine.manifest.generation == 1


def test_an_update_keeps_the_canaries_and_a_delete_too(index: Path) -> None:
    before = read_manifest(index).canaries
    build_index([Document("c", "sea")], Drifted(runtime="x"), index)
    delete_documents(index, ["a"])
    assert read_manifest(index).canaries == before


def test_an_index_of_format_3_is_searched_and_gets_canaries_with_its_next_documents(
    index: Path,
) -> None:
    write_manifest(index, replace(read_manifest(index), canaries=None, format_version=3))
    with SearchEngine.open(index, Drifted(dense=1.0)) as engine:
        assert len(engine.search("whale").hits) == 2
    delete_documents(index, ["a"])
    assert read_manifest(index).canaries is None
    manifest = build_index([Document("c", "sea")], Drifted(runtime="x"), index)
    assert (manifest.format_version, manifest.canaries.runtime) == (4, "x")


def test_vectors_of_files_have_no_canaries(index: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    export_index(index, out)
    files = VectorFiles.open([out])
    assert build_index(DOCUMENTS, files, tmp_path / "made").canaries is None
    with SearchEngine.open(tmp_path / "made", FakeEncoder()) as engine:
        assert len(engine) == 2


def test_a_term_that_one_cut_off_as_its_smallest_is_no_drift() -> None:
    class Cut(FakeEncoder):
        def encode_queries(self, texts, corpus=None) -> Encoded:
            found = super().encode_queries(texts, corpus)
            rows = [(terms[1:], weights[1:]) for terms, weights in found.sparse]
            return Encoded(found.dense, SparseVectors.from_rows(rows))

    # All weights are alike but that of "the", which occurs twice in the first text.
    assert max(drifts(make_canaries(FakeEncoder()), Cut())) == 0
    assert max(drifts(make_canaries(Cut()), FakeEncoder())) == 0


@pytest.mark.parametrize("expansion", [0.0, 1.0])
def test_torch_and_onnx_agree_far_within_the_tolerance(tmp_path: Path, expansion: float) -> None:
    torch_encoder = TorchEncoder(tiny_model(expansion=expansion), tiny_tokenizer(), "tiny")
    torch_encoder.save(tmp_path / "model")
    encoder = Encoder.load(tmp_path / "model")
    assert "onnxruntime" in encoder.runtime
    assert "torch" in torch_encoder.runtime
    assert encoder.runtime.endswith(describe_cpu())
    canaries = make_canaries(encoder)
    assert max(drifts(canaries, torch_encoder)) < TOLERANCE / 100
    check_canaries(tmp_path, canaries, torch_encoder)


def test_a_model_in_half_precision_has_drifted(tmp_path: Path) -> None:
    canaries = make_canaries(TorchEncoder(tiny_model(expansion=0.0), tiny_tokenizer(), "tiny"))
    halved = TorchEncoder(tiny_model(expansion=0.0).bfloat16().float(), tiny_tokenizer(), "tiny")
    assert max(drifts(canaries, halved)) > TOLERANCE


def test_what_the_processor_can_do_is_one_line() -> None:
    assert describe_cpu().split()[1:] == list(cpu_features())
