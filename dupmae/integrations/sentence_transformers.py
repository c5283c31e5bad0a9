"""The two parts of a model as sentence-transformers' models: its dense and its sparse vectors.

They give what `Encoder` gives, to 1e-5, for queries by `encode_query` and for documents by
`encode_document`; plain `encode` takes texts for documents. One thing is left out: a
view knows no index, so terms of a query are weighed by the idf of the training text and not of what
is searched (`corpus_idf`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import InputModule
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dupmae.checkpoint import load_model, save_model
from dupmae.errors import CheckpointError, UsageError
from dupmae.folder import shipped_model
from dupmae.inputs import readable
from dupmae.model import DupMAE
from dupmae.represent import States, Vocabulary, represent
from dupmae.tokens import Tokens

Task = Literal["query", "document"]


class View(InputModule):  # type: ignore[misc] # the library carries no types
    """One part of a model; `DenseView` and `SparseView` say which.

    It takes the model over.
    """

    forward_kwargs = {"task"}  # noqa: RUF012 - so it is called and typed in the library
    save_in_root = False

    def __init__(self, model: DupMAE, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.name = name

    @property
    def max_seq_length(self) -> int:
        """Tokens that are read of a document, [CLS] and [SEP] included."""
        return self.model.heads.max_document_length

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        task: Task | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """Return padded token ids of texts, cut to the length for queries or for documents.

        Raises:
            UsageError: if an input is no text.
        """
        heads = self.model.heads
        length = heads.max_query_length if task == "query" else heads.max_document_length
        for text in inputs:
            if not isinstance(text, str):
                raise UsageError(f"a view reads texts, found {type(text).__name__}")
        texts = [readable((prompt or "") + text, length) for text in inputs]
        tokens = Tokens(self.tokenizer)
        input_ids, attention_mask = tokens.batch(tokens.ids(texts, length))
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def states(self, features: dict[str, Tensor]) -> States:
        """Run the body."""
        input_ids, mask = features["input_ids"], features["attention_mask"]
        return States(input_ids, mask, self.model.hidden_states(input_ids, mask))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **options: Any) -> View:
        """Read a model folder; `options` are for other modules.

        Raises:
            CheckpointError: if it is missing or damaged.
        """
        folder = cls.load_dir_path(
            model_name_or_path,
            subfolder,
            token=options.get("token"),
            cache_folder=options.get("cache_folder"),
            revision=options.get("revision"),
            local_files_only=bool(options.get("local_files_only")),
        )
        if folder is None:
            raise CheckpointError(f"{model_name_or_path} has no folder {subfolder}")
        loaded = load_model(folder)
        return cls(loaded.model, loaded.tokenizer, loaded.name)

    def save(self, output_path: str, *args: Any, **options: Any) -> None:
        """Write a model folder; `options` are for other modules."""
        save_model(self.model, self.tokenizer, Path(output_path), name=self.name)


class DenseView(View):
    """The projection of [CLS], as the model forms it."""

    def forward(self, features: dict[str, Any], task: Task | None = None) -> dict[str, Any]:
        """Add `sentence_embedding` (B, dim)."""
        states = self.states(features)
        cls = self.model.cls_state(states.hidden_BLD, states.mask_BL)
        return {**features, "sentence_embedding": self.model.dense(cls).float()}

    def get_embedding_dimension(self) -> int:
        """Return the length of a vector."""
        return self.model.heads.dense_dim


class SparseView(View):
    """Term weights, of which a query keeps `k_query`, a document `k_document`."""

    def forward(self, features: dict[str, Any], task: Task | None = None) -> dict[str, Any]:
        """Add `sentence_embedding` (B, vocabulary)."""
        states, heads = self.states(features), self.model.heads
        tokens = Tokens(self.tokenizer, states.input_ids_BL.device)
        as_query = task == "query"
        # Without expansion no term but those of the texts has a weight.
        everything = [range(tokens.vocabulary_size)] if heads.expands(as_query=as_query) else []
        vocabulary = Vocabulary.of(tokens, [*everything, *states.input_ids_BL.tolist()])
        weights = represent(self.model, tokens, states, vocabulary, as_query=as_query).sparse
        if as_query:
            kept = _heaviest(weights, weights, heads.k_query)
        else:
            in_queries = torch.relu(self.model.query_term_weight[vocabulary.terms])
            kept = _heaviest(weights, weights * in_queries, heads.k_document)
        vectors = weights.new_zeros(len(weights), tokens.vocabulary_size)
        vectors[:, vocabulary.terms] = kept
        return {**features, "sentence_embedding": vectors}

    def get_embedding_dimension(self) -> int:
        """Return the size of the vocabulary."""
        return len(self.tokenizer)


def dense_view(folder: Path | str | None = None, *, device: str = "cpu") -> SentenceTransformer:
    """Return the dense part of a model; of the shipped `dupmae-mini` if no folder is given.

    Raises:
        CheckpointError: if the folder is missing or damaged.
    """
    view = DenseView.load(str(shipped_model() if folder is None else folder))
    return SentenceTransformer(modules=[view], similarity_fn_name="dot", device=device)


def sparse_view(folder: Path | str | None = None, *, device: str = "cpu") -> SparseEncoder:
    """Return the sparse part of a model; of the shipped `dupmae-mini` if no folder is given.

    Raises:
        CheckpointError: if the folder is missing or damaged.
    """
    view = SparseView.load(str(shipped_model() if folder is None else folder))
    return SparseEncoder(modules=[view], similarity_fn_name="dot", device=device)


def _heaviest(weights_BV: Tensor, worth_BV: Tensor, k: int) -> Tensor:
    """Return weights of which all but k of a row are 0, those of the largest worth.

    Of equals the first is kept.
    """
    if weights_BV.shape[1] <= k:
        return weights_BV
    # A worth of 0 comes before no weight at all.
    worth_BV = worth_BV.masked_fill(weights_BV <= 0, -torch.inf)
    order = worth_BV.argsort(dim=1, descending=True, stable=True)
    return weights_BV.scatter(1, order[:, k:], 0.0)
