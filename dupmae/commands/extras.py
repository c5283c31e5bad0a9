"""What is only installed on demand: which modules an extra brings, and the cure where they lack."""

from __future__ import annotations

from importlib.util import find_spec

from dupmae.errors import UsageError

EXTRAS = {
    "eval": (("bm25s", "ir_measures", "scipy", "Stemmer"), "eval"),
    "train": (
        ("scipy", "torch", "transformers"),
        "pretrain, finetune, adapt, export --onnx and model folders of others",
    ),
    "serve": (("fastapi", "prometheus_client", "uvicorn"), "serve"),
    "mcp": (("mcp",), "mcp"),
    "lucene": (("jnius", "pyserini"), "index --sparse lucene and eval --systems bm25-lucene"),
    "sentence-transformers": (
        ("sentence_transformers",),
        "eval --systems st:MODEL and st-sparse:MODEL",
    ),
}
"""Modules of each extra, and what it is for."""


def missing_modules(extra: str) -> list[str]:
    """Return which modules of an extra are not installed; imports none."""
    return [module for module in EXTRAS[extra][0] if find_spec(module) is None]


def require_extra(extra: str, what: str) -> None:
    """Raise UsageError with the cure unless `what`, such as a command, has its modules."""
    missing = missing_modules(extra)
    if missing:
        raise UsageError(
            f"{what} needs {', '.join(missing)}, not installed; pip install 'dupmae[{extra}]' "
            f"brings what it needs (in a checkout: pip install -e '.[{extra}]')"
        )
