"""Model folders as we and others write them, and their tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_model import VOCABULARY, tiny_model
from torch import Tensor

from dupmae.model import DupMAE

Tensors = dict[str, Tensor]
NO_MLM_HEAD = ("MLM head transform (random until fitted)", "MLM head bias (zero)")
NO_HEADS = ("W_cls (identity)", "query term weights (all one)", "query gain (always one)")
NO_OPTIONS = (
    "[CLS] attention (the mean of all states)",
    "idf of the training text (all one)",
    "neighbours of terms (none)",
)
GAIN = ("query_log_gain.weight", "query_log_gain.bias")
BODY = "bert."


def published(model: DupMAE | None = None) -> Tensors:
    """Return what `BertForMaskedLM.save_pretrained` of old wrote: the tied decoder included."""
    state = (model or tiny_model()).lm.state_dict()
    return {name: tensor.clone() for name, tensor in state.items()}


def without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {
        name: tensor for name, tensor in tensors.items() if not any(p in name for p in parts)
    }


def write_folder(
    folder: Path, tensors: Tensors, *, file: str = "model.safetensors", **config: object
) -> Path:
    """Write a folder as others publish it: configuration, weights, vocab.txt."""
    folder.mkdir(parents=True)
    content = tiny_model().lm.config.to_dict()
    content |= {"architectures": ["BertForMaskedLM"], "_name_or_path": "/home/someone"} | config
    (folder / "config.json").write_text(json.dumps(content))
    if file.endswith(".safetensors"):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file)
    else:
        torch.save(tensors, folder / file)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return folder


def body(model: DupMAE) -> Tensors:
    return {n: t.detach() for n, t in model.lm.named_parameters() if n.startswith(BODY)}


def assert_equal_tensors(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def all_parameters(model: DupMAE) -> Tensors:
    return {name: tensor.detach() for name, tensor in model.named_parameters()}


def with_options() -> DupMAE:
    return tiny_model(cls_attention=True, corpus_idf=0.5, k_neighbours=3)
