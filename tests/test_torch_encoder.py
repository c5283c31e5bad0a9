"""What the encoder with torch can do beside what both promise (`test_encoder.py`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import WORDS, tiny_model, tiny_tokenizer

from dupmae import torch_encoder as module
from dupmae import torch_network
from dupmae.errors import UsageError
from dupmae.torch_encoder import TorchEncoder

TEXTS = ["ba", "be bade fifo", "", " ".join(WORDS[:90])]


def tiny_encoder(**settings: object) -> TorchEncoder:
    return TorchEncoder(tiny_model(**settings), tiny_tokenizer(), "tiny")


def test_without_expansion_the_vocabulary_is_never_projected(monkeypatch):
    monkeypatch.setattr(torch_network, "pool_vocabulary", None)
    assert len(tiny_encoder(expansion=0.0).encode_documents(TEXTS)) == len(TEXTS)


def test_half_precision_halves_the_file_and_barely_moves_the_vectors(tmp_path):
    encoder = tiny_encoder(k_document=1000, k_query=1000)
    encoder.save(tmp_path / "whole")
    encoder.save(tmp_path / "half", half_precision=True)
    whole, half = (tmp_path / name / "model.safetensors" for name in ("whole", "half"))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    loaded = TorchEncoder.load(tmp_path / "half")
    one, other = encoder.encode_documents(TEXTS), loaded.encode_documents(TEXTS)
    np.testing.assert_allclose(one.dense, other.dense, rtol=0, atol=1e-2)
    assert loaded.seal != encoder.seal
    assert loaded.seal in (tmp_path / "half" / "README.md").read_text()


def test_a_device_that_is_not_there_is_refused():
    for device in ("cuda:77", "no-such-device"):
        with pytest.raises(UsageError, match=f"device '{device}' cannot be used"):
            TorchEncoder(tiny_model(), tiny_tokenizer(), "tiny", device=device)


def test_bfloat16_is_nearly_the_same_and_says_what_it_is():
    model = tiny_model(corpus_idf=1.0, cls_attention=True, k_document=1000)
    encoders: list[Any] = [
        TorchEncoder(model, tiny_tokenizer(), "tiny", precision=precision)
        for precision in ("float32", "bfloat16")
    ]
    whole, half = (encoder.encode_documents(TEXTS) for encoder in encoders)
    assert 1e-4 < np.abs(whole.dense - half.dense).max() < 0.1
    assert half.dense.dtype == half.sparse.weights.dtype == np.float32
    weights = [sum(weights.sum() for _, weights in encoded.sparse) for encoded in (whole, half)]
    assert weights[1] == pytest.approx(weights[0], rel=0.02)
    assert weights[1] != weights[0]
    assert encoders[0].seal == encoders[1].seal
    assert " bfloat16 on " in encoders[1].runtime
    assert " float32 on " in encoders[0].runtime
    assert model.word_embeddings.weight.dtype == torch.float32


def test_another_precision_is_refused():
    with pytest.raises(UsageError, match="must be float32 or bfloat16, found 'int8'"):
        TorchEncoder(tiny_model(), tiny_tokenizer(), "tiny", precision="int8")  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("settings", [{}, {"expansion": 0.0}, {"k_neighbours": 4}], ids=str)
def test_a_gpu_gives_the_processors_vectors(settings, monkeypatch):
    monkeypatch.setattr(module, "DEVICE_BATCH_TOKENS", 200)  # several batches at a time
    processor = tiny_encoder(**settings)
    gpu = TorchEncoder(tiny_model(**settings), tiny_tokenizer(), "tiny", device="cuda")
    for encode in ("encode_documents", "encode_queries"):
        one, other = (getattr(encoder, encode)(TEXTS * 20) for encoder in (processor, gpu))
        np.testing.assert_array_equal(one.sparse.terms, other.sparse.terms)
        np.testing.assert_allclose(one.sparse.weights, other.sparse.weights, atol=1e-3)
        np.testing.assert_allclose(one.dense, other.dense, atol=1e-4)


def test_threads_sets_what_torch_uses(tmp_path):
    tiny_encoder().save(tmp_path / "tiny")
    before = torch.get_num_threads()
    try:
        TorchEncoder.load(tmp_path / "tiny", threads=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
