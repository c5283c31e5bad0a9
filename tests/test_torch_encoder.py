"""What the encoder with torch can do beside what both promise (`test_encoder.py`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_model import WORDS, tiny_model, tiny_tokenizer

from dupmae import torch_encoder as module
from dupmae.errors import UsageError
from dupmae.torch_encoder import TorchEncoder

TEXTS = ["ba", "be bade fifo", "", " ".join(WORDS[:90])]


def tiny_encoder(**settings: object) -> TorchEncoder:
    return TorchEncoder(tiny_model(**settings), tiny_tokenizer(), "tiny")


def test_without_expansion_the_vocabulary_is_never_projected(monkeypatch):
    monkeypatch.setattr(module, "pool_vocabulary", None)
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


def test_threads_sets_what_torch_uses(tmp_path):
    tiny_encoder().save(tmp_path / "tiny")
    before = torch.get_num_threads()
    try:
        TorchEncoder.load(tmp_path / "tiny", threads=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
