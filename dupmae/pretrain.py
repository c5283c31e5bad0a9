"""Pre-training: DupMAE, RetroMAE and their ablations on any text.

A part of a step is a pure function of the seed and of its number in the run: it names its blocks
in a shuffled order of the corpus, an epoch after the other, and its place in the stream of random
bits that masks are drawn from. So a resumed run, or the same batch cut into other parts or
processes, sees the same texts under the same masks.

Left out: blocks (`packing.py`), masks (`masking.py`), losses (`objective.py`), the loop
(`trainer.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, PreTrainedTokenizerFast

from dupmae.card import Card
from dupmae.checkpoint import load_model, save_model
from dupmae.errors import UsageError
from dupmae.folder import find_folder, shipped_model
from dupmae.heads import HeadSettings
from dupmae.masking import (
    MaskedBatch,
    MaskingSettings,
    WordPieces,
    draws_per_text,
    mask_batch,
    random_bits,
)
from dupmae.model import DupMAE
from dupmae.objective import ObjectiveSettings, PretrainingObjective
from dupmae.packing import CorpusSettings, TokenBlocks, open_corpus
from dupmae.probe import probe_pairs
from dupmae.processes import resolve_device
from dupmae.run_folder import has_checkpoint, settle_config
from dupmae.tokens import Tokens, read_tokenizer
from dupmae.trainer import Part, TrainerSettings, run
from dupmae.types import Int64


@dataclass(frozen=True)
class StartSettings:
    """The model to start from, or the size of a new one."""

    model: str = ""
    """A model folder; the shipped model if empty."""
    layers: int = 0
    """Above 0: start from random weights, with so many layers and the tokenizer of `model`."""
    hidden: int = 384
    """Width of a new model; its inner width is four times that."""
    attention_heads: int = 12
    """Attention heads of a new model."""
    max_positions: int = 512
    """The longest text that a new model can read, in tokens."""
    dropout: float = 0.1
    """Dropout while training."""

    def __post_init__(self) -> None:
        if self.hidden % self.attention_heads:
            raise UsageError(
                f"start.hidden must be a multiple of start.attention_heads, "
                f"found {self.hidden} and {self.attention_heads}"
            )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"start.dropout must lie in [0, 1), found {self.dropout}")


@dataclass(frozen=True)
class PretrainConfig:
    """All settings of a pre-training run."""

    start: StartSettings = field(default_factory=StartSettings)
    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    heads: HeadSettings | None = None
    """How vectors are formed later on; the start model's own settings if left out."""
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    name: str = "dupmae"
    """The finished model's name."""
    probe_texts: int = 200
    """Blocks kept out of training, a tenth of all at most, whose beginnings ask for their ends."""

    def __post_init__(self) -> None:
        if self.probe_texts < 0:
            raise UsageError(f"probe_texts must not be negative, found {self.probe_texts}")


def pretrain(config: PretrainConfig, folder: Path, *, texts: Sequence[str] = ()) -> None:
    """Pre-train into `folder`, going on from its checkpoint if there is one.

    Writes `config.toml`, `corpus/`, `log.jsonl`, `checkpoint.pt` and, at the end, `model/`.

    Args:
        config: all settings.
        folder: of this run alone.
        texts: the corpus if `config.corpus.files` is empty.

    Raises:
        UsageError: settings do not fit each other, or the run that is to be resumed.
        DataError: the corpus cannot be read, is empty, or changed since the run began.
        CheckpointError: the start model or the checkpoint is missing, damaged or of another run.
    """
    settle_config(config, folder)
    model, tokenizer = _start(config)
    blocks = open_corpus(
        config.corpus, tokenizer, folder / "corpus", texts=texts, resuming=has_checkpoint(folder)
    )
    run(PretrainTask(config, model, tokenizer, blocks), config.trainer, folder)


class PretrainTask:
    """What `trainer.run` trains when pre-training."""

    def __init__(
        self,
        config: PretrainConfig,
        model: DupMAE,
        tokenizer: PreTrainedTokenizerFast,
        blocks: TokenBlocks,
    ) -> None:
        positions = model.lm.config.max_position_embeddings
        if config.corpus.max_length > positions:
            raise UsageError(
                f"corpus.max_length is {config.corpus.max_length}, "
                f"but the start model reads {positions} tokens at most"
            )
        self._config = config
        self._blocks = blocks
        self._device = resolve_device(config.trainer.device)
        self._pieces = WordPieces.from_tokenizer(tokenizer)
        self._tokens = Tokens(tokenizer, self._device)
        with torch.random.fork_rng(devices=[]):
            # Every process, and a resumed run, must begin with the same decoder.
            torch.manual_seed(config.trainer.seed)
            self._objective = PretrainingObjective(model, config.objective).to(self._device)
        _prepare(self._objective, config.start.dropout)
        held_out, self._training = _split(len(blocks), config.probe_texts, config.trainer.seed)
        self._probe_pairs = _halves(*blocks.read(held_out), self._pieces, tokenizer)

    @property
    def model(self) -> PretrainingObjective:
        """The model with its decoder."""
        return self._objective

    def accumulate(self, part: Part) -> dict[str, float]:
        """Add the gradients of one part of the batch; see `trainer.Task`."""
        batch = self.batch(part).to(self._device)
        with part.autocast():
            losses = self._objective(batch, part.generator)
        (losses["loss"] / part.of).backward()
        return {name: float(value.detach()) for name, value in losses.items()}

    def batch(self, part: Part) -> MaskedBatch:
        """Return the part's texts under their masks, on the CPU."""
        trainer, width = self._config.trainer, self._config.corpus.max_length
        first = part.position * trainer.batch_size
        numbers = _shuffled_numbers(self._training, trainer.seed, first, trainer.batch_size)
        draws = draws_per_text(width, decoder=self._config.objective.decoder == "enhanced")
        return mask_batch(
            *self._blocks.read(numbers),
            self._pieces,
            self._config.masking,
            width=width,
            bits_BR=random_bits(trainer.seed, first, trainer.batch_size, draws),
        )

    def probe(self) -> dict[str, float]:
        """Return RR@10 of the held-out blocks' ends, asked for by their beginnings."""
        if not self._probe_pairs:
            return {}
        return probe_pairs(self._objective.model, self._tokens, self._probe_pairs)

    def save(self, folder: Path) -> None:
        """Write the model folder; the decoder stays behind in the checkpoint."""
        card = Card(base_model=Path(self._config.start.model).name)
        model = self._objective.model
        save_model(model, self._tokens.tokenizer, folder, name=self._config.name, card=card)


def _start(config: PretrainConfig) -> tuple[DupMAE, PreTrainedTokenizerFast]:
    """Load the start model, or make a new one from the run's seed."""
    start = config.start
    source = start.model or shipped_model()
    if not start.layers:
        loaded = load_model(source, heads=config.heads)
        return loaded.model, loaded.tokenizer
    bert = BertConfig(
        vocab_size=2**31,  # any tokenizer may come; its size follows
        hidden_size=start.hidden,
        num_hidden_layers=start.layers,
        num_attention_heads=start.attention_heads,
        intermediate_size=4 * start.hidden,
        max_position_embeddings=start.max_positions,
    )
    tokenizer = read_tokenizer(find_folder(source), bert.vocab_size)
    bert.vocab_size, bert.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    length = min(HeadSettings.max_document_length, start.max_positions)
    heads = config.heads or HeadSettings(
        dense_dim=start.hidden, max_document_length=length, max_query_length=length
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.trainer.seed)
        return DupMAE.from_config(bert, heads), tokenizer


def _prepare(objective: PretrainingObjective, dropout: float) -> None:
    """Set the dropout, and leave alone what only fine-tuning trains."""
    for module in objective.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    for name, parameter in objective.model.named_parameters():
        if not name.startswith("lm."):
            # No loss reaches the retrieval heads, and weight decay must not either.
            parameter.requires_grad_(False)


def _split(blocks: int, held_out: int, seed: int) -> tuple[Int64, Int64]:
    """Return the numbers of the held-out blocks and of all others, both rising."""
    held_out = min(held_out, blocks // 10)
    order = np.random.default_rng([seed, 0]).permutation(blocks)
    return np.sort(order[:held_out]), np.sort(order[held_out:])


def _shuffled_numbers(numbers: Int64, seed: int, first: int, count: int) -> Int64:
    """Return entries first, first + 1, … of the numbers shuffled anew for every epoch."""
    epoch_B, place_B = np.divmod(np.arange(first, first + count), len(numbers))
    chosen = np.empty(count, dtype=np.int64)
    for epoch in np.unique(epoch_B):
        inside_B = epoch_B == epoch
        order = _epoch_order(len(numbers), seed, int(epoch))
        chosen[inside_B] = numbers[order[place_B[inside_B]]]
    return chosen


@lru_cache(maxsize=2)
def _epoch_order(size: int, seed: int, epoch: int) -> Int64:
    return np.random.default_rng([seed, 1 + epoch]).permutation(size)


def _halves(
    tokens_BN: Int64, count_B: Int64, pieces: WordPieces, tokenizer: PreTrainedTokenizerFast
) -> list[tuple[str, str]]:
    """Cut blocks after a third of their tokens, before a word: (beginning, rest) as texts."""
    pairs = []
    for tokens_N, count in zip(tokens_BN, count_B, strict=True):
        opens = np.flatnonzero(~pieces.continues_V[tokens_N[:count]])
        later = opens[opens > 0]
        if len(later):
            cut = int(later[np.abs(later - count // 3).argmin()])
            halves = (tokens_N[:cut], tokens_N[cut:count])
            pairs.append((tokenizer.decode(halves[0]), tokenizer.decode(halves[1])))
    return pairs
