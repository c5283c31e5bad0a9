"""An index of vectors from files equals one whose documents were encoded; bad files are named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder

from dupmae.engine import (
    SearchEngine,
    VectorFiles,
    build_index,
    export_index,
    read_corpus,
    read_manifest,
)
from dupmae.errors import DataError, DupMAEError, IndexMissingError, SealError, UsageError
from dupmae.indexes.tensors import Tensor, write_tensors
from dupmae.types import Document

DOCUMENTS = [
    Document(f"d{i}", "" if i == 5 else f"ship number {i} 😀", "title" * (i % 2), {"n": [i]})
    for i in range(20)
]
SETTINGS = {"encoder": "fake", "seal": FakeEncoder().seal, "vocabulary_size": "1000"}
FORWARD = ["dense.npy", "indptr.npy", "terms.npy", "weights.npy", "frequency.npy"]
KINDS = pytest.mark.parametrize("suffix", [".safetensors", ".npz"])


def arrays_of(documents: Sequence[Document]) -> dict[str, np.ndarray]:
    encoded = FakeEncoder().encode_documents([document.content for document in documents])
    sparse = encoded.sparse
    return {
        "indptr": sparse.indptr,
        "dense": encoded.dense,
        "terms": sparse.terms,
        "weights": sparse.weights,
    }


def write(
    path: Path,
    documents: Sequence[Document] = DOCUMENTS,
    settings: Mapping[str, str] = SETTINGS,
    **changes: Any,
) -> Path:
    """Write the vectors of documents, with some arrays replaced, and the ids."""
    arrays = arrays_of(documents) | changes
    tensors = [Tensor(n, a.dtype, a.shape, [a]) for n, a in arrays.items() if a is not None]
    write_tensors(path, tensors, settings)
    lines = [json.dumps({"_id": document.doc_id}) for document in documents]
    path.with_suffix(".jsonl").write_text("\n".join(lines) + "\n")
    return path


def build(folder: Path, *paths: Path, encoder: FakeEncoder | None = None) -> None:
    with VectorFiles.open(paths, encoder) as vectors:
        build_index(DOCUMENTS, vectors, folder, block_size=7)


def assert_equal_indexes(one: Path, two: Path) -> None:
    first, second = read_manifest(one), read_manifest(two)
    assert (first.documents, first.corpus_hash) == (second.documents, second.corpus_hash)
    assert (first.encoder_name, first.encoder_seal) == (second.encoder_name, second.encoder_seal)
    for name in FORWARD:
        place = Path("segments/000001/forward") / name
        assert (one / place).read_bytes() == (two / place).read_bytes()
    with (
        SearchEngine.open(one, FakeEncoder()) as engine,
        SearchEngine.open(two, FakeEncoder()) as other,
    ):
        queries = ["ship number 7", "title", "nothing of the kind"]
        assert engine.search_batch(queries, k=20) == other.search_batch(queries, k=20)
        assert engine.documents.get(range(20)) == other.documents.get(range(20))


@pytest.fixture
def encoded(tmp_path: Path) -> Path:
    build_index(DOCUMENTS, FakeEncoder(), tmp_path / "encoded", block_size=7)
    return tmp_path / "encoded"


@KINDS
def test_an_index_of_a_file_of_vectors_is_that_of_the_encoder(
    tmp_path: Path, encoded: Path, suffix: str
) -> None:
    build(tmp_path / "imported", write(tmp_path / f"v{suffix}"))
    assert_equal_indexes(encoded, tmp_path / "imported")


def test_vectors_may_lie_in_several_files_and_in_any_order(tmp_path: Path, encoded: Path) -> None:
    one = write(tmp_path / "one.npz", DOCUMENTS[12:])
    two = write(tmp_path / "two.safetensors", DOCUMENTS[11::-1])
    build(tmp_path / "imported", one, two)
    assert_equal_indexes(encoded, tmp_path / "imported")


@KINDS
def test_an_index_of_what_was_exported_is_the_same(
    tmp_path: Path, encoded: Path, suffix: str
) -> None:
    path = tmp_path / f"out{suffix}"
    assert export_index(encoded, path) == 20
    documents = list(read_corpus(tmp_path / "out.jsonl"))
    assert documents == DOCUMENTS
    with VectorFiles.open([path]) as vectors:
        assert (vectors.name, vectors.dense_dim, len(vectors)) == ("fake", 8, 20)
        build_index(documents, vectors, tmp_path / "again")
    assert_equal_indexes(encoded, tmp_path / "again")


def test_an_export_replaces_no_file_and_wants_an_index(tmp_path: Path, encoded: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("mine")
    with pytest.raises(UsageError, match=r"corpus\.jsonl is there already"):
        export_index(encoded, tmp_path / "corpus.npz")
    assert (tmp_path / "corpus.jsonl").read_text() == "mine"
    with pytest.raises(UsageError, match=r"\.safetensors or \.npz"):
        export_index(encoded, tmp_path / "vectors.bin")
    with pytest.raises(IndexMissingError):
        export_index(tmp_path / "none", tmp_path / "v.npz")


def test_an_export_that_fails_leaves_nothing(
    tmp_path: Path, encoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("dupmae.engine.export.write_tensors", fail)
    with pytest.raises(DupMAEError, match=r"out\.npz could not be written: No space left"):
        export_index(encoded, tmp_path / "out.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["encoded"]


def test_narrow_floats_and_wide_whole_numbers_are_taken(tmp_path: Path) -> None:
    arrays = arrays_of(DOCUMENTS)
    halves = {name: arrays[name].astype(np.float16) for name in ("dense", "weights")}
    wide = {"terms": arrays["terms"].astype(np.int64), "indptr": arrays["indptr"].astype(np.int32)}
    build(tmp_path / "index", write(tmp_path / "v.npz", **halves, **wide))
    for name in halves:
        stored = np.load(tmp_path / f"index/segments/000001/forward/{name}.npy")
        np.testing.assert_array_equal(stored, halves[name].astype(np.float32))


def test_files_that_name_no_encoder_need_one_and_are_then_sealed_by_it(
    tmp_path: Path, encoded: Path
) -> None:
    path = write(tmp_path / "v.npz", settings={})
    with pytest.raises(UsageError, match=r"v\.npz does not say which encoder.*--model"):
        VectorFiles.open([path])
    build(tmp_path / "imported", path, encoder=FakeEncoder())
    assert_equal_indexes(encoded, tmp_path / "imported")
    with pytest.raises(DataError, match=r"v\.npz: expected 9 dimensions as encoder fake.*found 8"):
        VectorFiles.open([path], FakeEncoder(dense_dim=9))


def test_vectors_of_another_encoder_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "v.npz")
    with pytest.raises(SealError, match=r"v\.npz was made by encoder fake .*, not by other"):
        VectorFiles.open([path], FakeEncoder("other"))
    other = write(tmp_path / "w.npz", settings=SETTINGS | {"seal": "91bc", "encoder": "other"})
    with pytest.raises(SealError, match=r"w\.npz was made by encoder other.*v\.npz by fake"):
        VectorFiles.open([path, other])


def changed(name: str, place: int, value: float) -> dict[str, np.ndarray]:
    array = arrays_of(DOCUMENTS)[name]
    array.reshape(-1)[place] = value
    return {name: array}


def wrong(name: str, **options: Any) -> dict[str, Any]:
    array = arrays_of(DOCUMENTS)[name]
    return {name: array[: options.get("end")].astype(options.get("dtype", array.dtype))}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"terms": None}, "no 'terms'; found dense, indptr, weights"),
        (wrong("dense", dtype="float64"), "float32 or float16, found 2 of float64"),
        ({"dense": np.zeros(20, np.float32)}, "dense must have 2 dimensions.*found 1 of"),
        (wrong("indptr", end=-1), "expected 21 entries in indptr.*20 rows, found 20"),
        (wrong("weights", end=-1), r"expected \d+ weights, one a term, found \d+"),
        (changed("indptr", 0, 1), "indptr must start with 0"),
        (changed("indptr", 3, 0), "indptr must start with 0, never fall"),
        (changed("indptr", 20, 7), "end with the number of terms"),
        (changed("dense", 8 * 3 + 1, np.nan), r"row 3 \(document 'd3'\): dense.*finite"),
        (changed("weights", 0, np.inf), r"row 0 \(document 'd0'\): weights must be finite"),
        (changed("weights", 0, 0), r"row 0 \(document 'd0'\): .*greater than 0"),
        (changed("terms", 0, -1), r"row 0 .*expected terms from 0 to 999, found -1 to"),
        (changed("terms", 0, 1000), r"row 0 .*expected terms from 0.* to 1000"),
        (changed("terms", 0, 999), r"row 0 .*strictly increasing"),
        ({"terms": arrays_of(DOCUMENTS)["terms"] + np.int64(2**32)}, "row 0 .*expected terms from"),
        ({"terms": arrays_of(DOCUMENTS)["terms"] - np.int64(2**32)}, "row 0 .*expected terms from"),
    ],
)
def test_arrays_that_break_a_rule_are_named_with_file_and_row(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=rf"v\.npz.*{words}") as caught:
        build(tmp_path / "index", write(tmp_path / "v.npz", **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        (DOCUMENTS[:-1], r"document 'd19' of the corpus has no vectors in .*v\.npz"),
        (
            [*DOCUMENTS, Document("more", "")],
            "vectors of 21 documents, of which the corpus has 20; it lacks 'more'",
        ),
        ([*DOCUMENTS, DOCUMENTS[4]], r"v\.jsonl: the id 'd4' of row 20 repeats"),
    ],
)
def test_every_document_has_its_vectors_once(
    tmp_path: Path, documents: Sequence[Document], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        build(tmp_path / "index", write(tmp_path / "v.npz", documents))
    assert not (tmp_path / "index").exists()


def test_a_document_in_two_files_is_found(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a.npz"), write(tmp_path / "b.npz", DOCUMENTS[3:4])
    with pytest.raises(DataError, match=r"b\.jsonl: the id 'd3' of row 0 repeats"):
        VectorFiles.open([one, two])


def test_files_of_other_dimensions_do_not_fit_together(tmp_path: Path) -> None:
    one = write(tmp_path / "a.npz")
    two = write(tmp_path / "b.npz", dense=np.zeros((20, 9), np.float32))
    with pytest.raises(DataError, match=r"b\.npz: expected 8 dimensions as .*a\.npz has, found 9"):
        VectorFiles.open([one, two])


def test_the_file_of_ids_must_be_there_with_one_for_each_row(tmp_path: Path) -> None:
    path = write(tmp_path / "v.npz")
    ids = tmp_path / "v.jsonl"
    lines = ids.read_text().splitlines(keepends=True)
    for number, found in ((19, 19), (21, 21)):
        ids.write_text("".join([*lines, '{"_id": "more"}\n'][:number]))
        with pytest.raises(DataError, match=rf"v\.jsonl: expected 20 ids.*found {found}"):
            VectorFiles.open([path])
    ids.write_text('{"_id": "a"}\n{"id": "b"}\n')
    with pytest.raises(DataError, match=r'v\.jsonl, line 2: no "_id"'):
        VectorFiles.open([path])
    ids.unlink()
    with pytest.raises(DataError, match=r"v\.jsonl is missing"):
        VectorFiles.open([path])


def test_an_import_that_was_stopped_begins_anew(tmp_path: Path, encoded: Path) -> None:
    path = write(tmp_path / "v.npz", **changed("dense", 8 * 19, np.nan))
    with pytest.raises(DataError, match="row 19"):
        build(tmp_path / "imported", path)
    build(tmp_path / "imported", write(path))
    assert_equal_indexes(encoded, tmp_path / "imported")
