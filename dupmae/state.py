"""The parameters of a model as they are saved, and their seal."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dupmae.model import DupMAE
from dupmae.seal import ARCHITECTURE, seal_of
from dupmae.types import Float32


def encoder_tensors(model: DupMAE) -> dict[str, Tensor]:
    """Return the encoder and its MLM head under `BertForMaskedLM` names, the tied decoder once."""
    return {name: tensor.detach() for name, tensor in model.lm.named_parameters()}


def head_tensors(model: DupMAE) -> dict[str, Tensor]:
    """Return what DupMAE adds to the encoder: all parameters outside it."""
    return {
        name: tensor.detach()
        for name, tensor in model.named_parameters()
        if not name.startswith("lm.")
    }


def as_stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a parameter on the CPU in the type that it is saved in; whole numbers stay as is."""
    stored = tensor.detach().cpu()
    return (stored.to(dtype) if stored.is_floating_point() else stored).contiguous()


def model_seal(
    model: DupMAE, tokenizer: PreTrainedTokenizerFast, *, dtype: torch.dtype = torch.float32
) -> str:
    """Return the model's seal.

    Args:
        model: on any device.
        tokenizer: as it works now.
        dtype: seal the weights as they will be once saved in this type and loaded again.
    """
    return seal_of(
        model.heads,
        {name: getattr(model.lm.config, name) for name in ARCHITECTURE},
        tokenizer.backend_tokenizer.to_str(),
        tokenizer.all_special_ids,
        _weights(model, dtype),
    )


def _weights(model: DupMAE, dtype: torch.dtype) -> Iterator[tuple[str, Float32]]:
    # named_parameters yields the tied decoder once, under its embeddings' name.
    for name, tensor in sorted(model.named_parameters()):
        yield name, as_stored(tensor, dtype).float().numpy()
