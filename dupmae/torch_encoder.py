"""Texts → dense and sparse vectors, both from one forward pass of a model folder.

A text's vectors do not depend on the texts beside it, on their order or on padding, up to the
rounding of float32 sums: 1e-5 on dense values and term weights is tested. (A term whose weight
lies within that of the last one kept may be kept in one batch and cut in another.)

Every token that is not special votes in the max-pool, as in training. A text without one (empty,
or nothing but unknown words) has a dense vector and no terms. No tensor leaves this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

import torch
from transformers import PreTrainedTokenizerFast

from dupmae.base_encoder import BaseEncoder
from dupmae.card import Card
from dupmae.checkpoint import load_model, save_model
from dupmae.config import load_config
from dupmae.errors import UsageError
from dupmae.folder import shipped_model
from dupmae.hardware import describe_cpu
from dupmae.heads import HeadSettings, check_servable
from dupmae.model import DupMAE
from dupmae.processes import resolve_device
from dupmae.reader import Reader
from dupmae.state import model_seal
from dupmae.term_weights import TermWeights
from dupmae.torch_network import LANES, TorchNetwork
from dupmae.types import CorpusStatistics, Encoded

Precision = Literal["float32", "bfloat16"]
CPU_BATCH_TOKENS = 1024
"""Padding included; larger batches leave the caches and gain a CPU nothing."""
DEVICE_BATCH_TOKENS = 32768
"""The same on an accelerator."""


class TorchEncoder(BaseEncoder):
    """A model with its tokenizer, ready to encode; see the module for what it promises.

    It takes the model over: moves it to `device` and puts it in evaluation mode.
    """

    def __init__(
        self,
        model: DupMAE,
        tokenizer: PreTrainedTokenizerFast,
        name: str,
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
    ) -> None:
        if precision not in get_args(Precision):
            known = " or ".join(get_args(Precision))
            raise UsageError(f"precision must be {known}, found {precision!r}")
        check_servable(
            model.heads,
            dense_dim=model.cls_projection.out_features,
            positions=model.lm.config.max_position_embeddings,
            cls_attention=model.cls_attention is not None,
            knows_idf=model.training_idf is not None,
        )
        super().__init__(name, model.heads, tokenizer.backend_tokenizer, tokenizer.all_special_ids)
        self._device = resolve_device(str(device))
        self._model = model.eval().to(self._device)
        self._whole_tokenizer = tokenizer
        self._precision = precision
        self._seal = ""
        dtype = getattr(torch, precision)
        idf = model.training_idf
        term_weights = TermWeights(
            model.heads,
            model.query_term_weight.detach().relu().cpu().numpy(),
            None if idf is None else idf.cpu().numpy(),
        )
        on_cpu = self._device.type == "cpu"
        tokens = CPU_BATCH_TOKENS if on_cpu else DEVICE_BATCH_TOKENS
        network = TorchNetwork(self._model, self.vocabulary_size, self._special_ids, dtype)
        self._reader = Reader(network, term_weights, tokens, tokens, 1 if on_cpu else LANES)

    @classmethod
    def load(
        cls,
        folder: Path | str | None = None,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        threads: int | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> TorchEncoder:
        """Load a model folder.

        Args:
            folder: a folder or a name on the Hugging Face hub; the shipped `dupmae-mini` if None.
            device: torch's name of a device, or "auto": a GPU if there is one.
            precision: of the products; bfloat16 is off by about one percent of a vector's length
                and for GPUs.
            threads: CPU threads of this whole process; torch's own choice if None.
            settings: fields of `HeadSettings` to use instead of the folder's, such as
                `{"k_document": 128}`.

        Raises:
            CheckpointError: the folder is missing or damaged.
            UsageError: a setting, the device, the precision or the number of threads is out of
                range.
        """
        if threads is not None:
            if threads < 1:
                raise UsageError(f"threads must be at least 1, found {threads}")
            torch.set_num_threads(threads)
        loaded = load_model(shipped_model() if folder is None else folder)
        if settings:
            heads = loaded.model.heads
            loaded.model.heads = load_config(None, HeadSettings, asdict(heads) | dict(settings))
        return cls(loaded.model, loaded.tokenizer, loaded.name, device=device, precision=precision)

    @property
    def runtime(self) -> str:
        """What runs the model: the library's version, the precision, the processor."""
        device = self._device
        on = describe_cpu() if device.type == "cpu" else device.type
        if device.type == "cuda":
            on = torch.cuda.get_device_name(device)
        return f"torch {torch.__version__} {self._precision} on {on}"

    @property
    def seal(self) -> str:
        """Hex digest of all that decides the vectors, computed when first asked for."""
        if not self._seal:
            self._seal = model_seal(self._model, self._whole_tokenizer)
        return self._seal

    def encode_tokenised(self, ids: Sequence[Sequence[int]]) -> Encoded:
        """Do the second half: encode what `tokenise_documents` returned, in its order."""
        return self._reader.documents(ids)

    def _encode_queries(
        self, ids: Sequence[Sequence[int]], corpus: CorpusStatistics | None
    ) -> Encoded:
        return self._reader.queries(ids, corpus)

    def save(
        self, folder: Path | str, *, half_precision: bool = False, card: Card | None = None
    ) -> None:
        """Write a model folder that `load` reads.

        Args:
            folder: made, with its parents; a model folder already there is replaced.
            half_precision: store 16-bit floats; the rounded model has another seal.
            card: what the README says besides usage and settings.
        """
        dtype = torch.float16 if half_precision else torch.float32
        save_model(
            self._model, self._whole_tokenizer, Path(folder), name=self.name, dtype=dtype, card=card
        )
