"""Texts → dense and sparse vectors, both from one forward pass of a model folder, without torch.

A text's vectors do not depend on the texts beside it, on their order, on padding or on the number
of threads, up to the rounding of float32 sums: 1e-5 on dense values and term weights is tested,
5e-5 on those of queries, which are larger. (A term whose weight lies within that of the last one
kept may be kept in one batch and cut in another.) `torch_encoder.py` gives the same vectors within
1e-5 (dense) and 1e-4 (term weights).

Every token that is not special votes in the max-pool, as in training. A text without one (empty,
or nothing but unknown words) has a dense vector and no terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from dupmae.base_encoder import BaseEncoder
from dupmae.config import load_config
from dupmae.errors import UsageError
from dupmae.folder import shipped_model
from dupmae.hardware import describe_cpu, processors
from dupmae.heads import HeadSettings, check_servable
from dupmae.reader import Reader
from dupmae.readings import Network
from dupmae.runtime import RUNTIME, GraphNetwork
from dupmae.short import ShortNetwork, reads_short
from dupmae.stored import StoredModel, read_model
from dupmae.term_weights import TermWeights
from dupmae.types import CorpusStatistics, Encoded

BATCH_TOKENS = 512
"""Of documents, padding included; each thread has such a batch at a time."""
QUERY_BATCH_TOKENS = 256
"""So that a few dozen queries keep all threads busy."""


class Encoder(BaseEncoder):
    """A stored model, ready to encode; see the module for what it promises."""

    def __init__(
        self, model: StoredModel, heads: HeadSettings, *, threads: int | None = None
    ) -> None:
        weights = model.weights
        check_servable(
            heads,
            dense_dim=len(weights["cls_projection.weight"]),
            positions=model.body.max_position_embeddings,
            cls_attention="cls_attention.key.weight" in weights,
            knows_idf="training_idf" in weights,
        )
        super().__init__(model.name, heads, model.tokenizer, model.special_ids)
        self._seal = model.seal(heads)
        idf_V = weights.get("training_idf")
        term_weights = TermWeights(
            heads,
            np.maximum(weights["query_term_weight"].astype(np.float32), 0),
            None if idf_V is None else idf_V.astype(np.float32),
        )
        make_graphs = partial(GraphNetwork, model, heads)
        self._is_compiled = reads_short(model)
        network: Network = (
            ShortNetwork(model, heads, make_graphs) if self._is_compiled else make_graphs()
        )
        self._reader = Reader(
            network,
            term_weights,
            BATCH_TOKENS,
            QUERY_BATCH_TOKENS,
            threads or processors(),
        )

    @classmethod
    def load(
        cls,
        folder: Path | str | None = None,
        *,
        threads: int | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Encoder:
        """Load a model folder.

        Args:
            folder: a folder or a name on the Hugging Face hub; the shipped `dupmae-mini` if None.
            threads: batches that are encoded at once; as many as there are processors if None.
            settings: fields of `HeadSettings` to use instead of the folder's, such as
                `{"k_document": 128}`.

        Raises:
            TorchNeededError: the folder is not of the kind that `TorchEncoder.save` writes.
            CheckpointError: the folder is missing or damaged.
            UsageError: a setting or the number of threads is out of range.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, found {threads}")
        model = read_model(shipped_model() if folder is None else folder)
        heads = load_config(None, HeadSettings, asdict(model.heads) | dict(settings or {}))
        return cls(model, heads, threads=threads)

    @property
    def seal(self) -> str:
        """Hex digest of all that decides the vectors."""
        return self._seal

    @property
    def runtime(self) -> str:
        """What runs the model: the library's version, the precision, the processor."""
        compiled = ", short texts compiled," if self._is_compiled else ""
        return f"{RUNTIME} float32{compiled} on {describe_cpu()}"

    def encode_tokenised(self, ids: Sequence[Sequence[int]]) -> Encoded:
        """Do the second half: encode what `tokenise_documents` returned, in its order."""
        return self._reader.documents(ids)

    def _encode_queries(
        self, ids: Sequence[Sequence[int]], corpus: CorpusStatistics | None
    ) -> Encoded:
        return self._reader.queries(ids, corpus)
