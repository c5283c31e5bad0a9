"""A model folder of ours, read without torch.

Such a folder is complete: `save_model` wrote it. What else `checkpoint.py` can load (other makers'
folders, pickles, parts that are missing) is refused here with `TorchNeededError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from dupmae.errors import CheckpointError, TorchNeededError
from dupmae.folder import find_folder, first_line, read_config, read_json, read_settings
from dupmae.heads import HeadSettings
from dupmae.seal import seal_of

HIDDEN_ACTS = ("gelu", "relu")
"""Activations inside the body that `graph.py` knows."""


Weights = Mapping[str, NDArray[Any]]
"""A model's weights by their names."""


@dataclass(frozen=True)
class BodyShape:
    """What of config.json a body is built by; the names are its keys."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    hidden_act: str
    layer_norm_eps: float

    def weights(self, heads: HeadSettings) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight of such a model by its name, in the order of names."""
        hidden, wide = self.hidden_size, self.intermediate_size
        shapes: dict[str, tuple[int, ...]] = {
            "cls_projection.weight": (heads.dense_dim, hidden),
            "query_term_weight": (self.vocab_size,),
            **_linear("query_log_gain", 1, hidden),
            "lm.cls.predictions.bias": (self.vocab_size,),
            **_linear("lm.cls.predictions.transform.dense", hidden, hidden),
            **_norm("lm.cls.predictions.transform.LayerNorm", hidden),
            **_norm("lm.bert.embeddings.LayerNorm", hidden),
            "lm.bert.embeddings.word_embeddings.weight": (self.vocab_size, hidden),
            "lm.bert.embeddings.position_embeddings.weight": (self.max_position_embeddings, hidden),
            "lm.bert.embeddings.token_type_embeddings.weight": (self.type_vocab_size, hidden),
        }
        for number in range(self.num_hidden_layers):
            layer = f"lm.bert.encoder.layer.{number}"
            for name in ("self.query", "self.key", "self.value", "output.dense"):
                shapes |= _linear(f"{layer}.attention.{name}", hidden, hidden)
            shapes |= _linear(f"{layer}.intermediate.dense", wide, hidden)
            shapes |= _linear(f"{layer}.output.dense", hidden, wide)
            for name in ("attention.output", "output"):
                shapes |= _norm(f"{layer}.{name}.LayerNorm", hidden)
        if heads.cls_attention:
            shapes |= _linear("cls_attention.query", hidden, hidden)
            shapes |= _linear("cls_attention.value", hidden, hidden)
            shapes["cls_attention.key.weight"] = (hidden, hidden)
        if heads.corpus_idf:
            shapes["training_idf"] = (self.vocab_size,)
        if heads.k_neighbours:
            shapes["term_neighbours"] = (self.vocab_size, heads.k_neighbours)
        return dict(sorted(shapes.items()))


@dataclass(frozen=True)
class StoredModel:
    """What a model folder holds."""

    name: str
    heads: HeadSettings
    body: BodyShape
    tokenizer: Tokenizer
    special_ids: frozenset[int]
    weights: Weights
    """In the order of their names and of the type that they are stored in."""

    def seal(self, heads: HeadSettings) -> str:
        """Return the seal of the model with these settings."""
        tokenizer, weights = self.tokenizer.to_str(), self.weights.items()
        return seal_of(heads, vars(self.body), tokenizer, self.special_ids, weights)


def read_model(source: Path | str) -> StoredModel:
    """Read a folder, or a model of the Hugging Face hub.

    Raises:
        TorchNeededError: it is no complete folder of ours.
        CheckpointError: there is no such folder, or it is damaged.
    """
    folder = find_folder(source)
    body = _read_body(folder)
    name, heads = read_settings(folder)
    if heads is None:
        raise _needs_torch(folder, "it has no dupmae.json")
    tokenizer = _read_tokenizer(folder, body.vocab_size)
    special_ids = _special_ids(folder, tokenizer)
    weights = _read_weights(folder, body.weights(heads))
    name = name or (folder.resolve().name if folder == Path(source) else str(source))
    return StoredModel(name, heads, body, tokenizer, special_ids, weights)


def _needs_torch(folder: Path, why: str) -> TorchNeededError:
    return TorchNeededError(
        f"{folder} can only be run by torch, since {why}; pip install 'dupmae[train]' brings it, "
        "and `export --onnx` then makes a folder that needs none"
    )


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _read_body(folder: Path) -> BodyShape:
    config = read_config(folder)
    values: dict[str, Any] = {field.name: config.get(field.name) for field in fields(BodyShape)}
    for name, value in values.items():
        kind = {"hidden_act": str, "layer_norm_eps": float}.get(name, int)
        if type(value) is not kind:
            raise _needs_torch(folder, f"its config.json gives no {name}")
    if values["hidden_act"] not in HIDDEN_ACTS:
        raise _needs_torch(folder, f"its hidden_act is {values['hidden_act']!r}")
    if config.get("is_decoder"):
        raise _needs_torch(folder, "it is a decoder")
    body = BodyShape(**values)
    if body.hidden_size % body.num_attention_heads:
        raise CheckpointError(
            f"{folder / 'config.json'} describes no BERT: {body.num_attention_heads} heads do not "
            f"divide {body.hidden_size} dimensions"
        )
    return body


def _read_weights(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
    found = {f"lm.{name}": each for name, each in _read_file(folder, "model.safetensors").items()}
    found |= _read_file(folder, "heads.safetensors")
    for name in found:
        if name.startswith("lm.") and name not in shapes:
            raise _needs_torch(folder, f"it holds {name.removeprefix('lm.')}")
    for name, shape in shapes.items():
        called = name.removeprefix("lm.")
        if name not in found:
            raise _needs_torch(folder, f"it lacks {called}")
        if found[name].shape != shape:
            raise CheckpointError(
                f"{folder}: {called} should be {shape}, found {found[name].shape}"
            )
        if not np.isfinite(found[name].sum(dtype=np.float64)):  # NaN and ∞ survive a sum
            raise CheckpointError(f"{folder}: {called} holds values that are not finite")
    if "term_neighbours" in shapes:
        check_term_ids(folder, found["term_neighbours"])
    return {name: found[name] for name in shapes}


def check_term_ids(folder: Path, neighbours_VK: NDArray[Any]) -> None:
    """Raise CheckpointError unless a model's neighbours (V, K) are term ids."""
    size, least, most = len(neighbours_VK), neighbours_VK.min(), neighbours_VK.max()
    if neighbours_VK.dtype.kind not in "iu" or least < 0 or most >= size:
        raise CheckpointError(
            f"{folder}: term_neighbours should hold term ids from 0 to {size - 1}, found "
            f"{least} to {most} as {neighbours_VK.dtype}"
        )


def _read_file(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    path = folder / name
    if not path.is_file():
        raise _needs_torch(folder, f"it has no {name}")
    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from None
    except (KeyError, TypeError) as error:  # bfloat16, which NumPy does not know
        raise _needs_torch(folder, f"NumPy has no type for {name}: {first_line(error)}") from None


def _read_tokenizer(folder: Path, vocabulary_size: int) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise _needs_torch(folder, "it has no tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more precise
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be read: {first_line(error)}"
        ) from None
    if tokenizer.get_vocab_size() > vocabulary_size:
        raise CheckpointError(
            f"the tokenizer in {folder} knows {tokenizer.get_vocab_size()} tokens, "
            f"the model only {vocabulary_size}; they do not belong together"
        )
    tokenizer.no_padding()
    return tokenizer


def _special_ids(folder: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids of the tokens that tokenizer_config.json gives a part to play."""
    config = read_json(folder / "tokenizer_config.json")
    roles = [config.get(f"{role}_token") for role in ("bos", "eos", "unk", "sep", "pad", "cls")]
    tokens = [*roles, config.get("mask_token"), *(config.get("extra_special_tokens") or [])]
    ids = set()
    for token in tokens:
        if token is not None:
            number = tokenizer.token_to_id(token["content"] if isinstance(token, dict) else token)
            if number is None:
                raise _needs_torch(folder, f"its tokenizer.json lacks {token}")
            ids.add(number)
    return frozenset(ids)
