"""Fine-tuning for retrieval: contrast and distillation on the raw sum of both parts.

A batch is computed in chunks of texts of like length. With `gradient_cache` the first pass keeps
vectors only and each chunk is computed again for its gradient, so that memory does not grow with
the batch. Source: Gao et al., arXiv 2101.06983.

Left out: rows and batches (`data.py`, `batch.py`), the loss (`retrieval_loss.py`), the loop
(`trainer.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dupmae.batch import Batch, BatchSource, DataSettings, join_shares
from dupmae.card import Card
from dupmae.checkpoint import load_model, save_model
from dupmae.errors import UsageError
from dupmae.heads import HeadSettings
from dupmae.initialise import (
    fit_cls_projection,
    fit_mlm_head,
    set_neighbours,
    set_query_weights,
)
from dupmae.model import DupMAE
from dupmae.probe import probe_pairs
from dupmae.processes import resolve_device
from dupmae.represent import Representation, States, by_length, read, represent
from dupmae.retrieval_loss import LossSettings, RetrievalLoss, TeacherStates
from dupmae.run_folder import has_checkpoint, settle_config
from dupmae.teachers import DenseTeacher, LateTeacher, LexicalTeacher
from dupmae.tokens import Tokens
from dupmae.trainer import Part, TrainerSettings, body_is_frozen, run

LEXICAL_SAMPLE = 20_000
"""Texts from which idf and the mean length are counted; more change BM25's order little."""
LATE_SAMPLE = 300
"""Texts from which the mean state is taken: some 50,000 tokens."""
_FREE_SETTINGS = ("name", "chunk_size", "gradient_cache")
"""What a resumed run may change: without dropout, it alters no gradient beyond rounding."""


@dataclass(frozen=True)
class StartSettings:
    """The model to start from, and how to fit heads that it lacks."""

    model: str
    """A model folder."""
    teacher: str = ""
    """A mean-pooled sentence encoder's folder, for alignment, teacher_sum and teacher_dense; the
    model's own body, where that is frozen, if left out."""
    fit_heads: bool = False
    """Before the first step fit MLM head, W_cls and query weights in closed form."""
    fit_texts: int = 2000
    """Texts for that."""
    dropout: float = 0.1
    """Dropout while training."""

    def __post_init__(self) -> None:
        if self.fit_texts < 1:
            raise UsageError(f"start.fit_texts must be at least 1, found {self.fit_texts}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"start.dropout must lie in [0, 1), found {self.dropout}")


@dataclass(frozen=True)
class FinetuneConfig:
    """All settings of a fine-tuning run."""

    start: StartSettings
    data: DataSettings
    heads: HeadSettings | None = None
    """How vectors are formed; the start model's own settings if left out."""
    loss: LossSettings = field(default_factory=LossSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    name: str = "dupmae"
    """The finished model's name."""
    chunk_size: int = 32
    """Texts of like length that are computed together."""
    gradient_cache: bool = False
    """Compute each chunk twice and keep no graph between."""

    def __post_init__(self) -> None:
        if self.chunk_size < 1:
            raise UsageError(f"chunk_size must be at least 1, found {self.chunk_size}")
        if self.start.fit_heads and not self.loss.lexical_scale:
            raise UsageError("start.fit_heads needs loss.lexical_scale above 0, a query's gain")
        if self.loss.late_scale and not self.loss.teacher_sum:
            raise UsageError("loss.late_scale is a part of teacher_sum's scores; set that above 0")
        if not self.loss.has_terms:
            raise UsageError("every loss weight is 0; set one, for instance loss.contrastive")
        if self.loss.needs_given_scores and not self.data.negatives:
            raise UsageError("loss.given_kl and given_margin_mse need data.negatives above 0")


def finetune(config: FinetuneConfig, folder: Path) -> None:
    """Fine-tune into `folder`, going on from its checkpoint if there is one.

    Writes `config.toml`, `log.jsonl`, `checkpoint.pt` and, at the end, `model/`.

    Raises:
        UsageError: settings do not fit each other, the data, or the run that is to be resumed.
        DataError: a file or row of it cannot be read.
        CheckpointError: the start model, the teacher or the checkpoint is missing, damaged or of
            another run.
        TrainingError: a loss or gradient is not finite.
        KeyboardInterrupt: the run was interrupted; what was done is saved.
    """
    settle_config(config, folder, free=_FREE_SETTINGS)
    run(FinetuneTask(config, folder), config.trainer, folder)


class _Chunk(NamedTuple):
    """Texts of like length that go through the network together."""

    as_query: bool
    positions: list[int]
    seed: int


class FinetuneTask:
    """What `trainer.run` trains when fine-tuning."""

    def __init__(self, config: FinetuneConfig, folder: Path) -> None:
        """Load the start model, fit the heads that are to be fitted, and open the data.

        Args:
            config: all settings.
            folder: of the run; compressed data is unpacked there.
        """
        self._config = config
        loaded = load_model(config.start.model, heads=config.heads)
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._start_name = loaded.name
        _check_lengths(config.data, self._model)
        device = resolve_device(config.trainer.device)
        self._model.to(device)
        self._tokens = Tokens(self._tokenizer, device)
        self._source = BatchSource(config.data, self._tokens, folder / "data")
        self._frozen = body_is_frozen(self._model, config.trainer)
        teacher = self._load_teacher(device)
        lexical = self._fit_lexical()
        if config.start.fit_heads and not has_checkpoint(folder):
            self._fit_heads(lexical, teacher)
        for module in self._model.modules():
            if isinstance(module, nn.Dropout):  # a frozen body is the teacher, which has none
                module.p = 0.0 if self._frozen else config.start.dropout
        self._loss = RetrievalLoss(
            config.loss,
            self._model.heads,
            lexical,
            teacher,
            self._fit_late(lexical) if config.loss.late_scale else None,
            config.trainer.steps,
        )

    @property
    def model(self) -> DupMAE:
        """The model in training."""
        return self._model

    def save(self, folder: Path) -> None:
        """Write the model folder."""
        card = Card(base_model=self._start_name)
        save_model(self._model, self._tokenizer, folder, name=self._config.name, card=card)

    def probe(self) -> dict[str, float]:
        """Return RR@10 over the rows held out of every file."""
        pairs = self._source.held_out()
        return probe_pairs(self._model, self._tokens, pairs) if pairs else {}

    def accumulate(self, part: Part) -> dict[str, float]:
        """Add the gradients of one part of the batch; see `trainer.Task`."""
        batch = self._source.draw(part, self._config.trainer.batch_size)
        chunks = self._chunks(batch, part)
        states = self._read_frozen(chunks, batch, part) if self._frozen else [None] * len(chunks)
        cached = self._config.gradient_cache
        with torch.no_grad() if cached else nullcontext():
            outputs = [
                self._encode(chunk, known, batch, part)
                for chunk, known in zip(chunks, states, strict=True)
            ]
        leaves = [
            Representation(*(tensor.detach().requires_grad_() for tensor in output))
            for output in outputs
        ]
        queries = _join(leaves, chunks, True, len(batch.queries), part)
        documents = _join(leaves, chunks, False, len(batch.documents), part)
        teacher_states = self._teacher_states(chunks, states, batch, part)
        terms = self._loss(queries, documents, batch, part, teacher_states)
        # Every process computes the loss of the whole batch, and the loop averages over
        # processes: times their number gives the gradient of one process with it all.
        (terms["loss"] * (part.world_size / part.of)).backward()
        for chunk, known, leaf, output in zip(chunks, states, leaves, outputs, strict=True):
            again = self._encode(chunk, known, batch, part) if cached else output
            torch.autograd.backward(list(again), [_gradient(tensor) for tensor in leaf])
        return {name: float(value.detach()) for name, value in terms.items()}

    def _chunks(self, batch: Batch, part: Part) -> list[_Chunk]:
        """Split this process's share of the batch."""
        chunks: list[_Chunk] = []
        for as_query, side in ((True, batch.queries), (False, batch.documents)):
            mine = range(part.rank, len(side), part.world_size)
            for chunk in by_length([len(side.ids[i]) for i in mine], self._config.chunk_size):
                seed = part.generator.initial_seed() + len(chunks)
                chunks.append(_Chunk(as_query, [mine[i] for i in chunk], seed))
        return chunks

    @torch.no_grad()
    def _read_frozen(
        self, chunks: Sequence[_Chunk], batch: Batch, part: Part
    ) -> list[States | None]:
        """Run the frozen body once; gradients, teachers and cached chunks start from its states."""
        with part.autocast():
            return [read(self._model, self._tokens, _chunk_ids(chunk, batch)) for chunk in chunks]

    def _teacher_states(
        self, chunks: Sequence[_Chunk], states: Sequence[States | None], batch: Batch, part: Part
    ) -> TeacherStates | None:
        """Put the frozen body's states in the order of the batch; read the other processes'."""
        if not self._frozen or not self._loss.needs_states:
            return None
        if part.world_size > 1:
            everyone = replace(part, rank=0, world_size=1)
            chunks = self._chunks(batch, everyone)
            states = self._read_frozen(chunks, batch, everyone)
        sides = TeacherStates([], [])
        for as_query, side in ((True, sides.queries), (False, sides.documents)):
            placed = {
                position: text
                for chunk, known in zip(chunks, states, strict=True)
                if chunk.as_query == as_query and known is not None
                for position, text in zip(chunk.positions, known.texts(), strict=True)
            }
            side.extend(placed[position] for position in range(len(placed)))
        return sides

    def _encode(
        self, chunk: _Chunk, states: States | None, batch: Batch, part: Part
    ) -> Representation:
        torch.manual_seed(chunk.seed)  # the same dropout when a cached chunk is computed again
        with part.autocast():
            return represent(
                self._model,
                self._tokens,
                states or read(self._model, self._tokens, _chunk_ids(chunk, batch)),
                batch.vocabulary,
                as_query=chunk.as_query,
            )

    def _load_teacher(self, device: torch.device) -> DenseTeacher | None:
        start, dense_dim = self._config.start, self._model.heads.dense_dim
        needs = self._config.loss
        if not self._frozen and (needs.late_scale or (needs.needs_cosine and not start.teacher)):
            raise UsageError(
                "loss.alignment, teacher_sum and teacher_dense need start.teacher, or, as does "
                "late_scale, a frozen body: trainer.freeze_embeddings and all freeze_layers"
            )
        if not start.teacher:
            return None
        teacher = DenseTeacher(start.teacher, device)
        if teacher.dim != dense_dim and (self._config.loss.alignment or start.fit_heads):
            raise UsageError(
                f"start.teacher's vectors have {teacher.dim} dimensions, heads.dense_dim is "
                f"{dense_dim}; loss.alignment and start.fit_heads need them to be equal"
            )
        return teacher

    def _fit_lexical(self) -> LexicalTeacher:
        texts = self._source.sample_texts(LEXICAL_SAMPLE)
        ids = self._tokens.ids(texts, self._config.data.document_length)
        return LexicalTeacher.fit([text[1:-1] for text in ids], self._tokens.vocabulary_size)

    @torch.no_grad()
    def _fit_late(self, lexical: LexicalTeacher) -> LateTeacher:
        texts = self._source.sample_texts(LATE_SAMPLE)
        ids = self._tokens.ids(texts, self._config.data.document_length)
        chunks = by_length(list(map(len, ids)), self._config.chunk_size)
        states = [
            state
            for chunk in chunks
            for state in read(self._model, self._tokens, [ids[i] for i in chunk]).texts()
        ]
        return LateTeacher(torch.cat(states).mean(dim=0), lexical.idf)

    def _fit_heads(self, lexical: LexicalTeacher, teacher: DenseTeacher | None) -> None:
        texts = self._source.sample_texts(self._config.start.fit_texts)
        length = self._config.data.document_length
        fit_mlm_head(self._model, self._tokens, texts[:: max(1, len(texts) // 500)], length)
        if teacher is not None:
            fit_cls_projection(self._model, self._tokens, texts, length, teacher)
        set_query_weights(self._model, lexical, self._config.loss.lexical_scale)
        set_neighbours(self._model, self._tokens)


def _chunk_ids(chunk: _Chunk, batch: Batch) -> list[list[int]]:
    side = batch.queries if chunk.as_query else batch.documents
    return [side.ids[position] for position in chunk.positions]


def _check_lengths(data: DataSettings, model: DupMAE) -> None:
    longest = max(data.query_length, data.document_length)
    positions = model.lm.config.max_position_embeddings
    if longest > positions:
        raise UsageError(
            f"data.query_length and document_length must not exceed the start model's {positions} "
            f"positions, found {longest}"
        )


def _join(
    leaves: Sequence[Representation],
    chunks: Sequence[_Chunk],
    as_query: bool,
    total: int,
    part: Part,
) -> Representation:
    """Return one side of the whole batch in order, with gradients to this process's leaves."""
    mine = [i for i, chunk in enumerate(chunks) if chunk.as_query == as_query]
    places = [position for i in mine for position in chunks[i].positions]
    dense = torch.cat([leaves[i].dense for i in mine])
    sparse = torch.cat([leaves[i].sparse for i in mine])
    return Representation(
        join_shares(dense, places, total, part.world_size),
        join_shares(sparse, places, total, part.world_size),
    )


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
