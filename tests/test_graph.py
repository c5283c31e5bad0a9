"""The graph's variants mean what torch means; the usual ones are compared in `test_encoder.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import VOCABULARY, WORDS, tiny_model, tiny_tokenizer

from dupmae import encoder as encoder_module
from dupmae import graph as graph_module
from dupmae import runtime
from dupmae.checkpoint import save_model
from dupmae.encoder import Encoder
from dupmae.model import DupMAE
from dupmae.onnx_format import Graph
from dupmae.torch_encoder import TorchEncoder
from dupmae.types import Encoded

TEXTS = ["", "ba be bade fifo", " ".join(WORDS[:90]), "zuzo ga", " ".join(WORDS[30:50])]


def loaded(folder: Path, model: DupMAE, threads: int = 1) -> Encoder:
    save_model(model, tiny_tokenizer(), folder / "tiny", name="tiny")
    return Encoder.load(folder / "tiny", threads=threads)


def assert_close(found: Encoded, expected: Encoded, tolerance: float) -> None:
    np.testing.assert_array_equal(found.sparse.terms, expected.sparse.terms)
    np.testing.assert_allclose(found.sparse.weights, expected.sparse.weights, atol=tolerance)
    np.testing.assert_allclose(found.dense, expected.dense, atol=tolerance)


@pytest.mark.parametrize("terms", [1, 64, 200])
def test_the_vocabulary_may_be_projected_in_pieces(tmp_path, monkeypatch, terms):
    monkeypatch.setattr(graph_module, "TERMS_AT_ONCE", terms)
    model = tiny_model(k_document=200)
    expected = TorchEncoder(model, tiny_tokenizer(), "tiny").encode_documents(TEXTS)
    assert_close(loaded(tmp_path, model).encode_documents(TEXTS), expected, 1e-5)


def test_a_body_of_another_activation_means_what_torch_means(tmp_path):
    model = tiny_model()
    config = model.lm.config
    config.hidden_act = "relu"
    relu = DupMAE.from_config(config, model.heads)
    relu.load_state_dict(model.state_dict())
    expected = TorchEncoder(relu, tiny_tokenizer(), "tiny").encode_documents(TEXTS)
    assert_close(loaded(tmp_path, relu).encode_documents(TEXTS), expected, 1e-5)
    gelu = loaded(tmp_path, tiny_model()).encode_documents(TEXTS)
    assert abs(gelu.dense - expected.dense).max() > 1e-3


def test_the_vocabulary_is_held_once_and_again_only_to_expand(tmp_path, monkeypatch):
    opened = []

    class Spy(runtime.Session):
        @classmethod
        def of(cls, graph: Graph) -> runtime.Session:
            opened.append(graph)
            return super().of(graph)

    monkeypatch.setattr(runtime, "Session", Spy)
    for expansion in (0.0, 0.5):
        opened.clear()
        stored = loaded(
            tmp_path, tiny_model(expansion=expansion)
        )._reader.network._embeddings.words_VD
        weights = [weight for graph in opened for weight in graph.weights.values()]
        large = [weight for weight in weights if len(VOCABULARY) in weight.shape]
        copies = [weight for weight in large if weight is not stored]
        assert (len(large) - len(copies), bool(copies)) == (1, expansion > 0)


def test_vectors_are_bit_for_bit_the_same_with_any_number_of_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_module, "BATCH_TOKENS", 30)
    model = tiny_model(expansion=0.3)
    alone = loaded(tmp_path, model).encode_documents(TEXTS * 4)
    for threads in (2, 5):
        together = loaded(tmp_path, model, threads).encode_documents(TEXTS * 4)
        assert_close(together, alone, 0)


def test_an_error_in_one_thread_is_raised_and_no_batch_begins_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_module, "BATCH_TOKENS", 1)
    encoder = loaded(tmp_path, tiny_model(), threads=2)
    begun = []

    def fail(ids: list[list[int]], *, expands: bool) -> None:
        begun.append(ids)
        raise MemoryError("none left")

    monkeypatch.setattr(encoder._reader.network, "read", fail)
    with pytest.raises(MemoryError, match="none left"):
        encoder.encode_documents(TEXTS * 200)
    assert len(begun) < 1000
