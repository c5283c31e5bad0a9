"""The small files of a model folder: configuration, head settings, tokenizer; and where it lies."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers import AutoTokenizer, BertConfig, PreTrainedTokenizerFast

from dupmae.errors import CheckpointError, UsageError
from dupmae.model import HeadSettings
from dupmae.weights import first_line, read_json

FORMAT_VERSION = 1
"""Of dupmae.json and heads.safetensors."""

_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model")
_HUB_FILES = ("*.json", "model.safetensors", "heads.safetensors", "pytorch_model.bin", "pooler.pt")


def find_folder(source: Path | str) -> Path:
    """Return the folder that `source` names, from the hub if it must be."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{folder} is a file; a model is a folder with config.json in it")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(source)):
        raise CheckpointError(f"there is no model folder {folder}")
    try:
        return Path(snapshot_download(str(source), allow_patterns=[*_HUB_FILES, *_TOKENIZER_FILES]))
    except Exception as error:  # the hub client raises its transport's errors, whatever that is
        raise CheckpointError(
            f"there is no model folder {folder}, and the Hugging Face hub did not give one: "
            f"{first_line(error)}"
        ) from None


def read_config(folder: Path) -> BertConfig:
    """Read config.json of a BERT-shaped model."""
    content = read_json(folder / "config.json")
    kind = content.get("model_type", "bert")
    if kind != "bert":
        raise CheckpointError(f"{folder} holds a model of type {kind!r}; only 'bert' is supported")
    positions = content.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise CheckpointError(
            f"{folder} uses {positions!r} positions; only 'absolute' is supported"
        )
    # The folder's own path and precision are no part of the architecture.
    for key in ("_name_or_path", "dtype", "torch_dtype", "transformers_version", "model_type"):
        content.pop(key, None)
    try:
        return BertConfig(**(content | {"tie_word_embeddings": True}))
    except Exception as error:  # the kind depends on the version of transformers
        raise CheckpointError(
            f"{folder / 'config.json'} is not BERT's: {first_line(error)}"
        ) from None


def read_settings(folder: Path) -> tuple[str, HeadSettings | None]:
    """Return the model's name and head settings if the folder is one of ours."""
    path = folder / "dupmae.json"
    if not path.is_file():
        return "", None
    content = read_json(path)
    version, saved = content.get("format"), content.get("heads")
    if not isinstance(version, int) or not isinstance(saved, dict):
        raise CheckpointError(f"{path} must hold 'format' and 'heads'")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {version}, this version of dupmae reads up to {FORMAT_VERSION}; "
            "upgrade dupmae"
        )
    unknown = saved.keys() - {field.name for field in fields(HeadSettings)}
    if unknown:
        raise CheckpointError(f"{path} holds unknown settings: {', '.join(sorted(unknown))}")
    try:
        return str(content.get("name", "")), HeadSettings(**saved)
    except (UsageError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from None


def read_tokenizer(folder: Path, config: BertConfig) -> PreTrainedTokenizerFast:
    """Read the tokenizer and check that it suits the model."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise CheckpointError(f"{folder} holds no tokenizer (tokenizer.json or vocab.txt)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
    except Exception as error:  # from Rust and Python, of any kind
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be read: {first_line(error)}"
        ) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(f"the tokenizer in {folder} has no fast form (tokenizer.json)")
    if len(tokenizer) > config.vocab_size:
        raise CheckpointError(
            f"the tokenizer in {folder} knows {len(tokenizer)} tokens, "
            f"the model only {config.vocab_size}; they do not belong together"
        )
    for role in ("cls_token_id", "sep_token_id", "pad_token_id"):
        if getattr(tokenizer, role) is None:
            raise CheckpointError(f"the tokenizer in {folder} has no {role.removesuffix('_id')}")
    return tokenizer
