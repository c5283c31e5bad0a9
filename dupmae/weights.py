"""Reads the weights of BERT-like folders and gives each tensor the name `BertForMaskedLM` uses.

Published checkpoints differ in prefixes (`bert.`, `lm.`, `module.`), in old names (`gamma`,
`beta`), in what they carry besides the encoder (pooler, `c_head`, position ids) and in the file
format. Left out: which of the tensors a model needs; `checkpoint.py` decides that.
"""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dupmae.errors import CheckpointError
from dupmae.folder import first_line

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Single-file weights by preference: a pickle is read only where there is nothing better."""

_WRAPPERS = re.compile(r"^(module\.|lm\.)+")
_IGNORED = re.compile(
    r"^(c_head\.|bert\.pooler\.|cls\.seq_relationship\.|bert\.embeddings\.(position|token_type)_ids$)"
)
"""The pre-training decoder, [CLS]'s tanh pooler, next-sentence prediction, constant buffers."""

WORD_EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
DECODER_WEIGHT = "cls.predictions.decoder.weight"
HEAD_BIAS = "cls.predictions.bias"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or a pickle of nothing but tensors."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors, and is not unpickled for safety; "
            "convert it to model.safetensors"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from None
    if not isinstance(tensors, dict) or not all(torch.is_tensor(v) for v in tensors.values()):
        raise CheckpointError(f"{path} must map names to tensors")
    return tensors


def read_encoder_weights(folder: Path) -> dict[str, Tensor]:
    """Return the folder's encoder and MLM head: `BertForMaskedLM` name → float32 tensor.

    The tied decoder is left out.

    Raises:
        CheckpointError: no weights, sharded weights, a damaged file, or an untied decoder.
    """
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        if any((folder / f"{name}.index.json").is_file() for name in WEIGHT_FILES):
            raise CheckpointError(
                f"{folder} holds its weights in several files; save them in one "
                "(save_pretrained with a larger max_shard_size)"
            )
        raise CheckpointError(f"{folder} holds no weights: neither {' nor '.join(WEIGHT_FILES)}")
    weights: dict[str, Tensor] = {}
    for name, tensor in read_tensors(path).items():
        standard = standard_name(name)
        if not _IGNORED.match(standard):
            weights[standard] = tensor.float()
    _untie_check(weights, path)
    return weights


def standard_name(name: str) -> str:
    """Return the name that `BertForMaskedLM` gives to a published tensor.

    >>> standard_name("lm.bert.encoder.layer.0.output.LayerNorm.gamma")
    'bert.encoder.layer.0.output.LayerNorm.weight'
    """
    name = _WRAPPERS.sub("", name)
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = f"bert.{name}"
    if name == "cls.predictions.decoder.bias":
        return HEAD_BIAS
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _untie_check(weights: dict[str, Tensor], path: Path) -> None:
    decoder = weights.pop(DECODER_WEIGHT, None)
    embeddings = weights.get(WORD_EMBEDDINGS)
    if decoder is None or embeddings is None or torch.equal(decoder, embeddings):
        return
    raise CheckpointError(
        f"{path}: the MLM decoder is not the word embeddings; only tied heads are supported"
    )


def read_pooler(folder: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Read Tevatron's `pooler.pt` as W_cls, if it is there.

    Returns:
        `{"cls_projection.weight": (P, D)}` or nothing, and in plain words what of the pooler
        W_cls cannot say.
    """
    path = folder / "pooler.pt"
    if not path.is_file():
        return {}, []
    pooler = read_tensors(path)
    if "linear_p.weight" not in pooler:
        raise CheckpointError(f"{path} must hold linear_p.weight, found {sorted(pooler)}")
    lost = []
    document = pooler["linear_p.weight"].float()
    query = pooler.get("linear_q.weight")
    if query is not None and not torch.equal(query.float(), document):
        lost.append("the pooler's own query projection (the document's is used)")
    if any(bool(pooler[name].any()) for name in pooler if name.endswith(".bias")):
        lost.append("the pooler's bias (W_cls has none)")
    return {"cls_projection.weight": document}, lost
