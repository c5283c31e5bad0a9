"""Facts about exact search by models of sentence-transformers, on vectors known by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tiny_model import VOCABULARY, tiny_tokenizer

from dupmae.errors import CheckpointError, UsageError

st = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

TEXTS = ["ba be", "bi bi", "ba ba", "", "be bo ba bi", "bi"]


def static_model(prompt: str = "", similarity: str = "cosine") -> st.SentenceTransformer:
    """Return a model whose vectors are the mean of one unit vector a word."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    backend = tiny_tokenizer().backend_tokenizer
    static = StaticEmbedding(backend, embedding_weights=np.eye(len(VOCABULARY), dtype=np.float32))
    return st.SentenceTransformer(
        modules=[static],
        prompts={"query": prompt, "document": ""},
        similarity_fn_name=similarity,
        device="cpu",
    )


def sparse_model() -> st.SparseEncoder:
    """Return a model that gives each word of a text, once, the weight 1 but "bo" 3."""
    import torch
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    weights = torch.ones(len(VOCABULARY))
    weights[VOCABULARY.index("bo")] = 3.0
    module = SparseStaticEmbedding(tiny_tokenizer(), weight=weights)
    return st.SparseEncoder(modules=[module], device="cpu")


def answers(model: object, queries: list[str], k: int = 10) -> list[list[tuple[int, float]]]:
    from dupmae.integrations.sentence_index import SentenceIndex

    rankings = SentenceIndex(model, TEXTS).search(queries, k)
    return [list(zip(r.ordinals.tolist(), r.scores.tolist(), strict=True)) for r in rankings]


def test_a_dense_model_scores_every_text_by_its_own_similarity() -> None:
    (found,) = answers(static_model(), ["ba"])
    assert [ordinal for ordinal, _ in found] == [2, 0, 4, 1, 3, 5]
    assert [score for _, score in found] == pytest.approx([1, math.sqrt(0.5), 0.5, 0, 0, 0])
    (found,) = answers(static_model(similarity="euclidean"), ["ba"], k=2)
    assert found == [(2, 0.0), (0, pytest.approx(-math.sqrt(0.5), abs=1e-6))]


def test_queries_get_the_prompt_that_the_model_has_for_them() -> None:
    (found,) = answers(static_model(prompt="be "), ["ba"], k=1)
    assert found == [(0, pytest.approx(1.0))]


def test_a_sparse_model_scores_by_the_terms_that_texts_share() -> None:
    found = answers(sparse_model(), ["bo be", "zy"], k=3)
    assert found == [[(4, 10.0), (0, 1.0), (1, 0.0)], [(0, 0.0), (1, 0.0), (2, 0.0)]]


@pytest.mark.parametrize("make", [static_model, sparse_model])
def test_answers_do_not_depend_on_blocks(make, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = ["ba", "bi", "bo be"]
    whole = answers(make(), queries, k=4)
    monkeypatch.setattr("dupmae.integrations.sentence_index._BLOCK", 2)
    for found, expected in zip(answers(make(), queries, k=4), whole, strict=True):
        assert [ordinal for ordinal, _ in found] == [ordinal for ordinal, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected])


def test_no_texts_give_no_answers() -> None:
    from dupmae.integrations.sentence_index import SentenceIndex

    (ranking,) = SentenceIndex(static_model(), []).search(["ba"], 3)
    assert len(ranking) == 0


def test_a_folder_is_loaded_as_what_it_was_saved_as(tmp_path: Path) -> None:
    from dupmae.integrations.sentence_index import load_sentence_model

    dense, sparse = str(tmp_path / "dense"), str(tmp_path / "sparse")
    static_model(prompt="be ").save(dense)
    sparse_model().save(sparse)
    assert answers(load_sentence_model(dense, sparse=False), ["ba"], k=1)[0][0][0] == 0
    assert answers(load_sentence_model(sparse, sparse=True), ["bo"], k=1) == [[(4, 9.0)]]
    with pytest.raises(UsageError, match="dense is a SentenceTransformer and no SparseEncoder"):
        load_sentence_model(dense, sparse=True)
    with pytest.raises(UsageError, match="sparse is a SparseEncoder and no SentenceTransformer"):
        load_sentence_model(sparse, sparse=False)
    Path(dense, "config_sentence_transformers.json").write_text("{}")  # as years ago
    with pytest.raises(UsageError, match="dense is a SentenceTransformer and no SparseEncoder"):
        load_sentence_model(dense, sparse=True)


def test_what_cannot_be_loaded_is_one_line_that_names_it(tmp_path: Path) -> None:
    from dupmae.integrations.sentence_index import load_sentence_model

    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "modules.json").write_text("[]")
    (tmp_path / "damaged" / "config_sentence_transformers.json").write_text("{")
    for name in (str(tmp_path), str(tmp_path / "damaged"), "no/such/folder"):
        with pytest.raises(CheckpointError, match=rf"^sentence-.* cannot load {name}: .+$"):
            load_sentence_model(name, sparse=False)


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    from dupmae.integrations.sentence_index import load_sentence_model

    static_model().save(str(tmp_path))
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    modules = tmp_path / "modules.json"
    text = modules.read_text()
    changed = text.replace(text.split('"type": "')[1].split('"')[0], "own.StaticEmbedding")
    modules.write_text(changed)
    with pytest.raises(CheckpointError, match="cannot load"):
        load_sentence_model(str(tmp_path), sparse=False)
