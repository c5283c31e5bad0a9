"""Model folders: saved in Hugging Face's layout, loaded from that and from what others publish.

A saved folder opens with `BertForMaskedLM.from_pretrained`; what DupMAE adds lies beside it:

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json    Hugging Face's
    dupmae.json         format version, name, `HeadSettings`
    heads.safetensors   W_cls, query term weights and gain; with some settings more
    README.md           the model card

Left out: the state of a training run (`trainer.py`), the small files (`folder.py`) and
other makers' names (`weights.py`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertConfig, PreTrainedTokenizerFast

from dupmae.card import Card, render_card
from dupmae.errors import CheckpointError, UsageError
from dupmae.folder import (
    FORMAT_VERSION,
    find_folder,
    first_line,
    read_config,
    read_json,
    read_settings,
    replacing_folder,
)
from dupmae.heads import HeadSettings
from dupmae.model import DupMAE
from dupmae.state import as_stored, encoder_tensors, head_tensors, model_seal
from dupmae.stored import check_term_ids
from dupmae.tokens import read_tokenizer
from dupmae.weights import read_encoder_weights, read_pooler, read_tensors

logger = logging.getLogger(__name__)

_HEADS = {
    "cls_projection.": "W_cls",
    "query_term_weight": "query term weights (all one)",
    "query_log_gain.": "query gain (always one)",
    "cls_attention.": "[CLS] attention (the mean of all states)",
    "training_idf": "idf of the training text (all one)",
    "term_neighbours": "neighbours of terms (none)",
}
"""How tensors of heads.safetensors begin, and what is said when one is absent."""


@dataclass(frozen=True)
class LoadedModel:
    """What a model folder gave."""

    model: DupMAE
    """In float32, on the CPU, in evaluation mode."""
    tokenizer: PreTrainedTokenizerFast
    name: str
    missing: tuple[str, ...]
    """What the checkpoint lacked and what stands in its place, in plain words."""


def load_model(source: Path | str, *, heads: HeadSettings | None = None) -> LoadedModel:
    """Load a model folder, ours or another maker's, or a model of the Hugging Face hub.

    Args:
        source: a folder; or `organisation/name`, looked up in the local hub cache and, unless
            HF_HUB_OFFLINE is set, on the hub.
        heads: used instead of the folder's own settings.

    Raises:
        CheckpointError: there is no such folder, or it is damaged, incomplete or not BERT-shaped.
    """
    folder = find_folder(source)
    config = read_bert_config(folder)
    name, saved_heads = read_settings(folder)
    weights = read_encoder_weights(folder)
    head_weights, lost = _read_heads(folder)
    settings = heads or saved_heads or _default_heads(config, head_weights)
    _check_lengths(settings, config, folder)
    tokenizer = read_tokenizer(folder, config.vocab_size)
    model = _make(config, settings, folder)
    missing = _missing_encoder(model, weights, folder) + _missing_heads(model, head_weights) + lost
    _fill(model.lm, weights, folder)
    _fill(model, head_weights, folder)
    if missing:
        logger.warning("%s lacks: %s", folder, "; ".join(missing))
    hub_name = str(source) if folder != Path(source) else folder.resolve().name
    return LoadedModel(model.eval(), tokenizer, name or hub_name, tuple(missing))


def read_bert_config(folder: Path) -> BertConfig:
    """Read config.json of a BERT-shaped model."""
    content = read_config(folder)
    try:
        return BertConfig(**(content | {"tie_word_embeddings": True}))
    except Exception as error:  # the kind depends on the version of transformers
        raise CheckpointError(
            f"{folder / 'config.json'} is not BERT's: {first_line(error)}"
        ) from None


def _read_heads(folder: Path) -> tuple[dict[str, Tensor], list[str]]:
    path = folder / "heads.safetensors"
    if path.is_file():
        tensors = read_tensors(path)
        if (neighbours := tensors.get("term_neighbours")) is not None:
            is_whole = not neighbours.is_floating_point()
            check_term_ids(folder, (neighbours if is_whole else neighbours.float()).numpy())
        return {name: tensor.float() for name, tensor in tensors.items()}, []
    if (folder / "dupmae.json").is_file():
        raise CheckpointError(f"{folder} has dupmae.json but no heads.safetensors; it is damaged")
    return read_pooler(folder)


def _default_heads(config: BertConfig, head_weights: Mapping[str, Tensor]) -> HeadSettings:
    """Keep all of [CLS] where nothing says otherwise: an untrained cut would lose information."""
    projection = head_weights.get("cls_projection.weight")
    length = min(HeadSettings.max_document_length, config.max_position_embeddings)
    return HeadSettings(
        dense_dim=config.hidden_size if projection is None else len(projection),
        max_document_length=length,
        max_query_length=length,
    )


def _check_lengths(heads: HeadSettings, config: BertConfig, folder: Path) -> None:
    longest = max(heads.max_document_length, heads.max_query_length)
    if longest > config.max_position_embeddings:
        raise CheckpointError(
            f"{folder} has {config.max_position_embeddings} positions, "
            f"but a text may have {longest} tokens; lower max_document_length and max_query_length"
        )


def _make(config: BertConfig, heads: HeadSettings, folder: Path) -> DupMAE:
    """Make a model whose weights, until they are filled in, come from a fixed seed.

    So a checkpoint that lacks some gives the same model, and seal, whenever it is loaded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return DupMAE.from_config(config, heads)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{folder / 'config.json'} describes no BERT: {first_line(error)}"
            ) from None


def _missing_encoder(model: DupMAE, weights: Mapping[str, Tensor], folder: Path) -> list[str]:
    """Say which parts of the MLM head are absent; an incomplete body is an error."""
    absent = sorted(encoder_tensors(model).keys() - weights.keys())
    body = [name for name in absent if name.startswith("bert.")]
    if body:
        raise CheckpointError(
            f"{folder} lacks {len(body)} of the encoder's tensors, the first is {body[0]}; "
            "is config.json the weights' own?"
        )
    missing = []
    if any(name.startswith("cls.predictions.transform.") for name in absent):
        missing.append("MLM head transform (random until fitted)")
    if "cls.predictions.bias" in absent:
        missing.append("MLM head bias (zero)")
    return missing


def _missing_heads(model: DupMAE, head_weights: Mapping[str, Tensor]) -> list[str]:
    """Say which retrieval heads are absent and what stands for them."""
    absent = head_tensors(model).keys() - head_weights.keys()
    missing = [
        text for start, text in _HEADS.items() if any(name.startswith(start) for name in absent)
    ]
    if missing and missing[0] == "W_cls":
        square = model.heads.dense_dim == model.lm.config.hidden_size
        missing[0] = "W_cls (identity)" if square else "W_cls (random until trained)"
    return missing


def _fill(module: torch.nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Copy the weights into the module; its body must have a place for each."""
    parameters = dict(module.named_parameters())
    for name, tensor in weights.items():
        if name not in parameters:
            if name.startswith("bert."):
                raise CheckpointError(f"{folder}: config.json leaves no place for {name}")
            logger.debug("%s: %s is not used", folder, name)
            continue
        if tensor.shape != parameters[name].shape:
            raise CheckpointError(
                f"{folder}: {name} should be {tuple(parameters[name].shape)}, "
                f"found {tuple(tensor.shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{folder}: {name} holds values that are not finite")
        parameters[name].data.copy_(tensor)


def save_model(
    model: DupMAE,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    name: str,
    dtype: torch.dtype = torch.float32,
    card: Card | None = None,
) -> None:
    """Write a model folder, which is never half there.

    Args:
        model: on any device; left as it is.
        tokenizer: its own truncation and padding are switched off.
        folder: made, with its parents; a model folder already there is replaced.
        name: what users call the model.
        dtype: float32, or float16 for half the size (it is loaded in float32 again).
        card: what the README says besides usage and settings.

    Raises:
        CheckpointError: `folder` holds something else than a model that this function wrote.
    """
    if dtype not in (torch.float32, torch.float16):
        raise UsageError(f"models are saved in float32 or float16, not {dtype}")
    with replacing_folder(folder) as beside:
        _write_files(model, tokenizer, beside, name=name, dtype=dtype)
        parameters = sum(tensor.numel() for tensor in model.parameters())
        seal = model_seal(model, tokenizer, dtype=dtype)
        text = render_card(
            card or Card(), name=name, heads=model.heads, parameters=parameters, seal=seal
        )
        (beside / "README.md").write_text(text, encoding="utf-8")


def _write_files(
    model: DupMAE,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    name: str,
    dtype: torch.dtype,
) -> None:
    def stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: as_stored(value, dtype) for key, value in tensors.items()}

    save_file(stored(encoder_tensors(model)), folder / "model.safetensors", {"format": "pt"})
    save_file(stored(head_tensors(model)), folder / "heads.safetensors", {"format": "pt"})
    config: dict[str, Any] = model.lm.config.to_dict()
    config.pop("_name_or_path", None)
    # The type to run in, not the type on disk: half precision is slow or absent on most CPUs.
    config |= {"architectures": ["BertForMaskedLM"], "dtype": "float32"}
    _write_json(config, folder / "config.json")
    settings = {"format": FORMAT_VERSION, "name": name, "heads": asdict(model.heads)}
    _write_json(settings, folder / "dupmae.json")
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder, legacy_format=False)
    tokenizer_config = read_json(folder / "tokenizer_config.json")
    for key in ("is_local", "local_files_only", "name_or_path"):  # where it was loaded from
        tokenizer_config.pop(key, None)
    _write_json(tokenizer_config, folder / "tokenizer_config.json")


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
