"""Views of a model in sentence-transformers give the encoder's vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tiny_model import WORDS, tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model
from dupmae.encoder import Encoder
from dupmae.errors import UsageError

sentence_transformers = pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed"
)

if TYPE_CHECKING:
    from dupmae.types import Encoded

TEXTS = ["", "ba", "ba be ba bi", " ".join(WORDS), " ".join(WORDS[:30] * 3), "unknown words"]
SETTINGS: dict[str, dict[str, object]] = {
    "as shipped": {
        "cls_attention": True,
        "expansion": 0.0,
        "frequency_k1": 0.9,
        "normalize_query_terms": True,
    },
    "expanding": {"expansion": 0.5, "activation": "log1p2_relu", "k_document": 12, "k_query": 5},
}


@pytest.fixture(scope="module", params=SETTINGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model(**SETTINGS[request.param]), tiny_tokenizer(), place, name="tiny")
    return place


def check(folder: Path, view: object, part: str) -> None:
    """Assert that a view's queries and documents are those of the encoder."""
    encoder = Encoder.load(folder, threads=1)
    for ours, theirs in (
        (encoder.encode_queries(TEXTS), view.encode_query(TEXTS)),  # type: ignore[attr-defined]
        (encoder.encode_documents(TEXTS), view.encode_document(TEXTS)),  # type: ignore[attr-defined]
        (encoder.encode_documents(TEXTS), view.encode(TEXTS)),  # type: ignore[attr-defined]
    ):
        expected = ours.dense if part == "dense" else rows(ours, encoder.vocabulary_size)
        found = theirs if part == "dense" else theirs.to_dense().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def rows(encoded: Encoded, size: int) -> np.ndarray:
    dense = np.zeros((len(encoded), size), dtype=np.float32)
    for row, (terms, weights) in enumerate(encoded.sparse):
        dense[row, terms] = weights
    return dense


def test_the_dense_view_gives_the_encoders_dense_vectors(folder: Path) -> None:
    from dupmae.integrations.sentence_transformers import dense_view

    view = dense_view(folder)
    check(folder, view, "dense")
    assert view.get_embedding_dimension() == 16
    assert view.max_seq_length == 40
    assert view.similarity_fn_name == "dot"


def test_the_sparse_view_gives_the_encoders_terms(folder: Path) -> None:
    from dupmae.integrations.sentence_transformers import sparse_view

    view = sparse_view(folder)
    check(folder, view, "sparse")
    assert view.get_embedding_dimension() == len(tiny_tokenizer())


def test_a_view_is_saved_with_a_modules_file_and_loaded_again(folder: Path, tmp_path: Path) -> None:
    from dupmae.integrations.sentence_transformers import dense_view, sparse_view

    dense_view(folder).save(str(tmp_path / "dense"))
    assert (tmp_path / "dense" / "modules.json").is_file()
    again = sentence_transformers.SentenceTransformer(
        str(tmp_path / "dense"), trust_remote_code=True, device="cpu"
    )
    check(folder, again, "dense")
    sparse_view(folder).save(str(tmp_path / "sparse"))
    sparse = sentence_transformers.SparseEncoder(
        str(tmp_path / "sparse"), trust_remote_code=True, device="cpu"
    )
    check(folder, sparse, "sparse")


def test_a_view_reads_texts_only(folder: Path) -> None:
    from dupmae.integrations.sentence_transformers import DenseView

    with pytest.raises(UsageError, match="reads texts, found tuple"):
        DenseView.load(str(folder)).preprocess([("a", "b")])
