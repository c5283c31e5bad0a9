"""The shipped encoder, as installed, and the whole path on real text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dupmae.checkpoint import LoadedModel, load_model
from dupmae.encoder import Encoder
from dupmae.engine import SearchEngine, Weights, build_index, read_corpus
from dupmae.eval import evaluate, load_beir, own_systems
from dupmae.folder import shipped_model
from dupmae.indexes import top_k
from dupmae.results import SearchResult
from dupmae.torch_encoder import TorchEncoder
from dupmae.types import CorpusStatistics, Document


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load()


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(shipped_model())


def test_it_has_at_most_25_million_parameters_and_50_megabytes(loaded: LoadedModel) -> None:
    assert sum(path.stat().st_size for path in shipped_model().iterdir()) <= 50e6
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) <= 25e6


def test_nothing_is_missing_in_its_folder(loaded: LoadedModel) -> None:
    assert loaded.missing == ()


def test_its_model_card_names_its_seal(encoder: Encoder) -> None:
    assert encoder.seal in (shipped_model() / "README.md").read_text(encoding="utf-8")


def test_a_question_finds_its_answer(encoder: Encoder, tmp_path: Path) -> None:
    texts = {
        "bone": "Low calcium intake makes bones brittle and fractures more likely.",
        "wing": "The lift of a wing grows with the angle of attack until the flow separates.",
        "court": "The supreme court overturned the verdict on appeal.",
    }
    documents = [Document(doc_id, text) for doc_id, text in texts.items()]
    build_index(documents, encoder, tmp_path / "index")
    with SearchEngine.open(tmp_path / "index", encoder) as engine:
        assert engine.search("what weakens the skeleton?").hits[0].doc_id == "bone"
        assert engine.search("when does an airfoil stall").hits[0].doc_id == "wing"
        assert engine.search("judges").hits[0].doc_id == "court"


def test_a_text_does_not_depend_on_its_batch(encoder: Encoder) -> None:
    texts = ["one short text", "a second text that is much longer " * 20, "x"]
    together = encoder.encode_documents(texts)
    for row, text in enumerate(texts):
        alone = encoder.encode_documents([text])
        np.testing.assert_allclose(together.dense[row], alone.dense[0], atol=1e-5)
        np.testing.assert_array_equal(together.sparse.row(row)[0], alone.sparse.row(0)[0])
        np.testing.assert_allclose(together.sparse.row(row)[1], alone.sparse.row(0)[1], atol=1e-4)


def test_torch_gives_the_same_seal_terms_and_vectors(encoder: Encoder) -> None:
    with_torch = TorchEncoder.load()
    assert with_torch.seal == encoder.seal
    words = [
        "the",
        "Löwen",
        "2,000",
        "naïve",
        "東京",
        "🦊",
        "[SEP]",
        "\ud800",
        "unpronounceability",
    ]
    texts = [" ".join((words * 70)[:length]) for length in (0, 1, 2, 7, 23, 150, 600)]
    statistics = CorpusStatistics(5000, np.arange(encoder.vocabulary_size) % 4999)
    for one, other in (
        (encoder.encode_documents(texts), with_torch.encode_documents(texts)),
        (encoder.encode_queries(texts), with_torch.encode_queries(texts)),
        (encoder.encode_queries(texts, statistics), with_torch.encode_queries(texts, statistics)),
    ):
        np.testing.assert_allclose(one.dense, other.dense, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(one.sparse.indptr, other.sparse.indptr)
        np.testing.assert_array_equal(one.sparse.terms, other.sparse.terms)
        np.testing.assert_allclose(one.sparse.weights, other.sparse.weights, rtol=0, atol=1e-4)
    assert len(encoder.tokenise_documents(texts[-1:])[0]) == 512


def check_against_brute_force(
    engine: SearchEngine, queries: list[str], results: list[SearchResult], k: int
) -> None:
    """Assert that every answer is proven and is the top k of all documents' scores."""
    encoded = engine.encode(queries, engine.weights)
    everything = np.arange(len(engine))
    ids = engine.documents.ids(everything)
    for row, result in enumerate(results):
        assert result.proven
        terms, weights = encoded.sparse.row(row)
        parts = engine.view.score(encoded.dense[row], terms, weights, everything)
        best = top_k(Weights(1.0, 1.0).combine(*parts), k)
        assert [hit.doc_id for hit in result.hits] == [ids[ordinal] for ordinal in best.ordinals]
        assert [hit.score for hit in result.hits] == best.scores.tolist()


@pytest.mark.slow
def test_on_scifact_every_answer_is_the_brute_force_one_and_the_sum_beats_its_parts(
    encoder: Encoder, shared_dir: Path, tmp_path: Path
) -> None:
    collection = load_beir(shared_dir / "beir" / "scifact")
    build_index(read_corpus(collection.corpus_path), encoder, tmp_path / "index")
    with SearchEngine.open(tmp_path / "index", encoder) as engine:
        queries = list(collection.queries.values())
        for k in (1, 10, 100):
            for start in range(0, len(queries), 64):  # the blocks that the engine encodes
                block = queries[start : start + 64]
                check_against_brute_force(engine, block, engine.search_batch(block, k), k)
        report = evaluate(own_systems(engine), collection, k=100)
    print(json.dumps(report.to_dict()["systems"]))  # noqa: T201
    assert report.proven == 1.0
    measured = {system: values["nDCG@10"] for system, values in report.systems.items()}
    assert measured["hybrid"] > max(measured["dense"], measured["sparse"])
