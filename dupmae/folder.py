"""Where a model folder lies, its small files, and how a new one takes an old one's place."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

from dupmae.errors import CheckpointError, UsageError
from dupmae.files import flush
from dupmae.heads import HeadSettings

FORMAT_VERSION = 1
"""Of dupmae.json and heads.safetensors."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model")
GRAPH_FILE = "model.onnx"
"""What `onnx_export.py` adds to a model folder; nothing here reads it."""
_HUB_FILES = ("*.json", "model.safetensors", "heads.safetensors", "pytorch_model.bin", "pooler.pt")

_OUR_FILES = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "dupmae.json",
    "heads.safetensors",
    "README.md",
    GRAPH_FILE,
}
"""What a model folder may hold that is replaced."""


def first_line(error: Exception) -> str:
    """Return the part of another library's message that fits in ours."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or raise CheckpointError in one line."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}; is it a model folder?") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found {type(content).__name__}")
    return content


def shipped_model() -> Path:
    """Return the folder of `dupmae-mini` inside the installed package."""
    folder = Path(str(resources.files("dupmae"))) / "models" / "dupmae-mini"
    if not (folder / "dupmae.json").is_file():
        raise CheckpointError(
            f"this installation carries no model at {folder}; name a model folder"
        )
    return folder


def find_folder(source: Path | str) -> Path:
    """Return the folder that `source` names, from the hub if it must be."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{folder} is a file; a model is a folder with config.json in it")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(source)):
        raise CheckpointError(f"there is no model folder {folder}")
    from huggingface_hub import snapshot_download  # slow to import, and seldom needed

    try:
        return Path(snapshot_download(str(source), allow_patterns=[*_HUB_FILES, *TOKENIZER_FILES]))
    except Exception as error:  # the hub client raises its transport's errors, whatever that is
        raise CheckpointError(
            f"there is no model folder {folder}, and the Hugging Face hub did not give one: "
            f"{first_line(error)}"
        ) from None


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json of a BERT-shaped model: what describes its architecture."""
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
    return content


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


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write a model to, which then takes the place of `folder`.

    If the block fails, `folder` stays as it was. Its parents are made.

    Raises:
        CheckpointError: `folder` holds something else than a model of ours.
    """
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield beside
        _put_in_place(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a model is saved as a folder")
    others = sorted(path.name for path in folder.iterdir() if path.name not in _OUR_FILES)
    if others:
        raise CheckpointError(
            f"{folder} holds {others[0]}, which is no part of a model; save to another folder"
        )


def _put_in_place(beside: Path, folder: Path) -> None:
    """Flush every file of `beside` to disk, then let the folder take `folder`'s name."""
    for path in beside.iterdir():
        path.chmod(0o644)  # safetensors makes its files private, and mkdtemp the folder
        flush(path)
    beside.chmod(0o755)
    flush(beside)
    if folder.exists():
        # A folder cannot be renamed onto one with content, so the old one steps aside first.
        old = beside.with_name(f"{beside.name}-old")
        folder.rename(old)
        beside.rename(folder)
        shutil.rmtree(old)
    else:
        beside.rename(folder)
    flush(folder.parent)
