"""A model of any maker → a folder that runs without torch, with its graph for others; checked.

Both are compared with torch before anything is left on the disk: the graph with the plain
definition (`model.py`), the folder with `TorchEncoder`. Texts are drawn from the model's own
vocabulary, so that no language is taken for granted.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dupmae.card import Card
from dupmae.checkpoint import LoadedModel, load_model
from dupmae.encoder import Encoder
from dupmae.errors import CheckpointError, UsageError
from dupmae.folder import GRAPH_FILE, replacing_folder
from dupmae.model import activate
from dupmae.runtime import Session
from dupmae.stored import HIDDEN_ACTS, read_model
from dupmae.tokens import Tokens
from dupmae.torch_encoder import TorchEncoder
from dupmae.types import Float32, SparseVectors
from dupmae.vocabulary import terms_of
from dupmae.whole_graph import build_whole

TOLERANCE = 1e-4
"""Of dense values, term weights and gains, each relative to the largest one if that is above 1."""
TEXTS = 16
_AT_ONCE = 2
"""Texts in a batch, one of them padded; the plain definition holds all their logits."""

Compared = tuple[str, NDArray[Any], NDArray[Any]]
"""Whether it is dense or sparse, what was found, and what torch says."""


@dataclass(frozen=True)
class Exported:
    """A folder that was written."""

    name: str
    seal: str
    dense: float
    """The largest difference from torch of a dense value, as `TOLERANCE` measures it."""
    sparse: float
    """The same of term weights and gains."""


def export_onnx(source: Path | str, folder: Path) -> Exported:
    """Write a model as a folder of ours, which needs no torch, with `model.onnx` in it.

    Args:
        source: a model folder, ours or another maker's, or a name on the Hugging Face hub.
        folder: made, with its parents; a model folder already there is replaced.

    Raises:
        CheckpointError: there is no such model, it is damaged, or what was written does not give
            torch's vectors; then `folder` stays as it was.
        UsageError: the model cannot be served, or not without torch, or `folder` is its own.
    """
    place = Path(source)
    if place.is_dir() and folder.resolve() == place.resolve():
        raise UsageError(f"{folder} is the model itself; export to another folder")
    loaded = load_model(source)
    encoder = TorchEncoder(loaded.model, loaded.tokenizer, loaded.name)
    _check_body(loaded)
    seal = encoder.seal
    with replacing_folder(folder) as beside:
        encoder.save(beside, card=Card(f"{loaded.name}, exported.", license="", language=()))
        if all((place / name).is_file() for name in ("dupmae.json", "README.md")):
            shutil.copyfile(place / "README.md", beside / "README.md")
        stored = read_model(beside)
        (beside / GRAPH_FILE).write_bytes(build_whole(stored).serialize(embedded=True))
        texts = _draw_texts(loaded, np.flatnonzero(terms_of(stored).is_term_V))
        off = {"dense": 0.0, "sparse": 0.0}
        for compare in (_of_graph, _of_folder):
            for kind, found, expected in compare(beside, loaded, texts):
                off[kind] = np.maximum(off[kind], _difference(found, expected))  # NaN stays
        dense, sparse = map(float, off.values())
        if not (dense <= TOLERANCE and sparse <= TOLERANCE):  # true of NaN
            raise CheckpointError(
                f"{source} would give other vectors than by torch: dense values are off by up to "
                f"{dense:.0e}, term weights by {sparse:.0e}, and {TOLERANCE:.0e} is allowed; "
                "nothing was written"
            )
    return Exported(loaded.name, seal, dense, sparse)


def _check_body(loaded: LoadedModel) -> None:
    """Raise UsageError if only torch knows how to run the model."""
    config = loaded.model.lm.config
    if config.hidden_act not in HIDDEN_ACTS:
        raise UsageError(
            f"{loaded.name} can only be run by torch: its hidden_act is {config.hidden_act!r}, "
            f"and graphs are made of {' or '.join(HIDDEN_ACTS)}"
        )
    if config.is_decoder:
        raise UsageError(f"{loaded.name} can only be run by torch: it is a decoder")


def _draw_texts(loaded: LoadedModel, terms: NDArray[np.int64]) -> list[str]:
    """Return texts of random terms, from one term up to more than a document's length."""
    drawn = np.random.default_rng(0)
    longest = loaded.model.heads.max_document_length
    lengths = np.linspace(1, longest, TEXTS).astype(int)
    return [str(loaded.tokenizer.decode(drawn.choice(terms, length))) for length in lengths]


def _of_graph(folder: Path, loaded: LoadedModel, texts: list[str]) -> Iterator[Compared]:
    """Run the graph and the plain definition of the model on texts."""
    session = Session(str(folder / GRAPH_FILE), {})
    tokens = Tokens(loaded.tokenizer)
    ids = tokens.ids(texts, loaded.model.heads.max_document_length)
    for start in range(0, len(ids), _AT_ONCE):
        input_ids_BL, mask_BL = tokens.batch(ids[start : start + _AT_ONCE])
        inputs = {"input_ids": input_ids_BL.numpy(), "attention_mask": mask_BL.numpy()}
        dense_BP, sparse_BV, log_gain_B1 = session.run(inputs, "dense", "sparse", "log_gain")
        expected = _by_definition(loaded, tokens, input_ids_BL, mask_BL)
        yield "dense", dense_BP, expected[0]
        yield "sparse", sparse_BV, expected[1]
        yield "sparse", log_gain_B1, expected[2]


@torch.inference_mode()
def _by_definition(
    loaded: LoadedModel, tokens: Tokens, input_ids_BL: torch.Tensor, mask_BL: torch.Tensor
) -> tuple[NDArray[Any], ...]:
    """Return dense vectors (B, P), activated maxima (B, V) of terms and gains (B, 1)."""
    model = loaded.model
    hidden_BLD = model.hidden_states(input_ids_BL, mask_BL)
    cls_BD = model.cls_state(hidden_BLD, mask_BL)
    pooled_BV = model.max_pool(hidden_BLD, tokens.ordinary(input_ids_BL))
    sparse_BV = activate(pooled_BV, model.heads.activation)
    sparse_BV[:, tokens.vocabulary_size :] = 0
    sparse_BV[:, loaded.tokenizer.all_special_ids] = 0
    found = model.dense(cls_BD), sparse_BV, model.query_log_gain(cls_BD)
    return tuple(each.numpy() for each in found)


def _of_folder(folder: Path, loaded: LoadedModel, texts: list[str]) -> Iterator[Compared]:
    """Encode texts as documents and as queries by the folder and by torch, nothing cut off.

    A cut could fall between two terms that weigh the same but for rounding. The model's settings
    stay without cuts.
    """
    model, size = loaded.model, loaded.model.lm.config.vocab_size
    model.heads = replace(model.heads, k_document=size, k_query=size, k_expansion=size)
    by_torch = TorchEncoder(model, loaded.tokenizer, loaded.name)
    encoder = Encoder.load(folder, settings=asdict(model.heads))
    for found, expected in (
        (encoder.encode_documents(texts), by_torch.encode_documents(texts)),
        (encoder.encode_queries(texts), by_torch.encode_queries(texts)),
    ):
        yield "dense", found.dense, expected.dense
        yield "sparse", _filled(found.sparse, size), _filled(expected.sparse, size)


def _filled(vectors: SparseVectors, size: int) -> Float32:
    """Return sparse vectors as (n, V)."""
    filled = np.zeros((len(vectors), size), dtype=np.float32)
    for row, (terms, weights) in zip(filled, vectors, strict=True):
        row[terms] = weights
    return filled


def _difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference, as `TOLERANCE` measures it; NaN if there is one anywhere."""
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
