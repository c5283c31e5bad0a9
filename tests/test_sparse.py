"""An index may have any sparse store, and answers the same with all."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import pytest
from fakes import FakeEncoder
from lucene import skip_without_lucene
from random_corpus import random_documents

from dupmae.cli import main
from dupmae.encoder import Encoder
from dupmae.engine import (
    Manifest,
    SearchEngine,
    VectorFiles,
    build_index,
    compact,
    export_index,
    read_corpus,
    read_manifest,
    verify_index,
)
from dupmae.errors import DupMAEError, IndexMissingError, UsageError
from dupmae.eval import load_beir
from dupmae.indexes.sparse import DEFAULT_SPARSE, SPARSE_STORES, check_sparse, open_sparse
from dupmae.types import Document


def stores_of(manifest: Manifest) -> list[str]:
    """Return the sparse store of each segment."""
    return [
        next(name for name in SPARSE_STORES if any(f"/{name}/" in file.path for file in s.files))
        for s in manifest.segments
    ]


def available_stores() -> list[str]:
    """Return the stores that this machine can run."""
    try:
        check_sparse("lucene")
    except DupMAEError:
        return [name for name in SPARSE_STORES if name != "lucene"]
    return list(SPARSE_STORES)


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return random_documents(400)


@pytest.fixture(scope="module")
def folders(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return an index of each store."""
    place = tmp_path_factory.mktemp("stores")
    found = [place / name for name in available_stores()]
    for folder in found:
        build_index(documents, FakeEncoder(corpus_idf=True), folder, sparse=folder.name)
    return found


@pytest.mark.parametrize("feedback", [0.0, 0.3])
def test_answers_and_scores_are_the_same_with_every_sparse_store(
    documents: list[Document], folders: list[Path], feedback: float
) -> None:
    encoder = FakeEncoder(corpus_idf=True)
    queries = [document.text[:20] for document in documents[:30]] + ["nothing known", ""]
    answers = []
    for folder in folders:
        with SearchEngine.open(folder, encoder, feedback=feedback) as engine:
            answers.append(engine.search_batch(queries, 7))

    assert all(result.proven for results in answers for result in results)
    hits = [[result.hits for result in results] for results in answers]
    assert all(found == hits[0] for found in hits)


def test_the_manifest_has_the_checksums_of_lucenes_files(
    documents: list[Document], tmp_path: Path
) -> None:
    skip_without_lucene()
    build_index(documents, FakeEncoder(), tmp_path / "index", sparse="lucene")

    assert verify_index(tmp_path / "index", deep=True) == []
    (path,) = (tmp_path / "index").rglob("*.doc")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (problem,) = verify_index(tmp_path / "index")
    assert re.search(r"lucene/.*\.doc has changed", problem)


def test_a_rebuild_may_change_the_store(documents: list[Document], tmp_path: Path) -> None:
    skip_without_lucene()
    folder = tmp_path / "index"
    for name in ("lucene", "tantivy"):
        manifest = build_index(documents, FakeEncoder(), folder, replace=True, sparse=name)
        assert stores_of(manifest) == [name]


def test_an_update_keeps_the_store_unless_another_is_asked_for_and_a_merge_has_the_newest(
    documents: list[Document], tmp_path: Path
) -> None:
    skip_without_lucene()
    folder, encoder = tmp_path / "index", FakeEncoder()
    build_index(documents[:300], encoder, folder, sparse="lucene")
    manifest = build_index(documents[290:320], encoder, folder)
    assert stores_of(manifest) == ["lucene", "lucene"]
    manifest = build_index(documents[320:330], encoder, folder, sparse="tantivy")
    assert stores_of(manifest) == ["lucene", "lucene", "tantivy"]
    queries = [document.text[:20] for document in documents[:30]]
    with SearchEngine.open(folder, encoder) as engine:
        mixed = engine.search_batch(queries, 7)

    assert stores_of(compact(folder)) == ["tantivy"]
    with SearchEngine.open(folder, encoder) as engine:
        merged = engine.search_batch(queries, 7)
    assert [result.hits for result in mixed] == [result.hits for result in merged]


def test_an_unknown_store_is_a_usage_error_that_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be inverted, tantivy, lucene, found 'bm25'"):
        build_index([Document("a", "b")], FakeEncoder(), tmp_path / "index", sparse="bm25")


def test_a_segment_without_a_store_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(IndexMissingError, match=r"no sparse store \(inverted, tantivy, lucene\)"):
        open_sparse(tmp_path)


def test_without_java_nothing_is_encoded_and_an_old_index_stands(
    documents: list[Document], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise DupMAEError("Lucene needs pyserini")

    encoder = FakeEncoder()
    build_index(documents, encoder, tmp_path / "index")
    before = read_manifest(tmp_path / "index"), encoder.encoded_documents
    monkeypatch.setattr("dupmae.indexes.sparse.java_class", missing)

    with pytest.raises(DupMAEError, match="Lucene needs"):
        build_index(documents, encoder, tmp_path / "index", replace=True, sparse="lucene")

    assert (read_manifest(tmp_path / "index"), encoder.encoded_documents) == before


def test_the_command_line_offers_every_store() -> None:
    (option,) = [option for option in main.commands["index"].params if option.name == "sparse"]
    assert list(option.type.choices) == list(SPARSE_STORES)
    assert DEFAULT_SPARSE in option.type.choices


@pytest.mark.slow
def test_on_cranfield_answers_of_the_shipped_encoder_are_the_same(
    shared_dir: Path, tmp_path: Path
) -> None:
    skip_without_lucene()
    collection = load_beir(shared_dir / "beir" / "cranfield")
    encoder = Encoder.load()
    documents = list(islice(read_corpus(collection.corpus_path), 300))
    build_index(documents, encoder, tmp_path / "inverted")
    export_index(tmp_path / "inverted", tmp_path / "vectors.npz")
    for name in ("tantivy", "lucene"):
        with VectorFiles.open([tmp_path / "vectors.npz"]) as vectors:
            build_index(documents, vectors, tmp_path / name, sparse=name)

    queries = list(collection.queries.values())
    answers = []
    for name in SPARSE_STORES:
        with SearchEngine.open(tmp_path / name, encoder, feedback=0.3) as engine:
            answers.append(engine.search_batch(queries, 10))

    assert all(result.proven for results in answers for result in results)
    hits = [[result.hits for result in results] for results in answers]
    assert hits[0] == hits[1] == hits[2]
