"""Which tokens the encoder must guess and which the decoder may see: no loop over tokens.

Shapes: B texts, L tokens, W words of a text, M masks drawn for a text, V vocabulary.

All functions are pure: chance comes in as 64 random bits a draw. `random_bits` reads those of a
text at its own place in one stream a run, so a text's masks depend on its number in the run
alone, not on the batch, part or process that it falls into.

Source: DupMAE's public pre-training collator and, below it, Hugging Face's whole-word masking.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dupmae.errors import UsageError
from dupmae.types import Int32, Int64

Bits = NDArray[np.uint64]
Flags = NDArray[np.bool_]

MOST_GUESSED = 512
"""The most tokens that are masked in one text."""
MOST_MASKS = 256
"""The most decoder masks that are drawn for one text."""
_NUMBER_BITS = np.uint64(0xFFFF)


@dataclass(frozen=True)
class MaskingSettings:
    """How much of a text is hidden."""

    encoder_rate: float = 0.3
    """p_enc, the share of the tokens that the encoder must guess."""
    decoder_rate: float = 0.5
    """p_dec, the share of the tokens that each row of the decoder cannot see."""

    def __post_init__(self) -> None:
        for field in fields(self):
            rate = getattr(self, field.name)
            if not 0 < rate < 1:
                raise UsageError(f"masking.{field.name} must lie between 0 and 1, found {rate}")


@dataclass(frozen=True)
class WordPieces:
    """What masking must know of a tokenizer."""

    cls_id: int
    sep_id: int
    pad_id: int
    mask_id: int
    continues_V: Flags
    """True for the pieces ('##…') that go on with the word before them."""

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerFast) -> WordPieces:
        """Read the special ids and the pieces off a WordPiece tokenizer."""
        if tokenizer.mask_token_id is None:
            raise UsageError("the model's tokenizer has no mask token; pre-training needs one")
        tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        return cls(
            tokenizer.cls_token_id,
            tokenizer.sep_token_id,
            tokenizer.pad_token_id,
            tokenizer.mask_token_id,
            np.array([token.startswith("##") for token in tokens]),
        )


@dataclass(frozen=True)
class MaskedBatch:
    """One batch of pre-training, all that the objective reads."""

    input_ids_BL: Tensor
    """What the encoder reads."""
    original_ids_BL: Tensor
    """What stood there before."""
    attention_mask_BL: Tensor
    """1 for tokens, 0 for padding."""
    guessed_BL: Tensor
    """bool: the tokens that the encoder must guess, whether [MASK] stands there or not."""
    ordinary_BL: Tensor
    """bool: the tokens that are neither [CLS] nor [SEP] nor padding."""
    visible_BLL: Tensor | None
    """bool: what each row of the decoder sees; None without a decoder."""

    def to(self, device: torch.device) -> MaskedBatch:
        """Return the batch on a device."""
        return MaskedBatch(
            self.input_ids_BL.to(device),
            self.original_ids_BL.to(device),
            self.attention_mask_BL.to(device),
            self.guessed_BL.to(device),
            self.ordinary_BL.to(device),
            None if self.visible_BLL is None else self.visible_BLL.to(device),
        )


def draws_per_text(width: int, decoder: bool) -> int:
    """Return how many draws a text of up to `width` tokens takes from the stream."""
    return width * (3 + (1 + min(width, MOST_MASKS) if decoder else 0))


def random_bits(seed: int, first: int, count: int, draws: int) -> Bits:
    """Return the draws (count, draws) of texts number first, first + 1, … of a run."""
    stream = np.random.PCG64DXSM(seed).advance(first * draws)
    return stream.random_raw((count, draws))


def mask_batch(
    tokens_BN: Int64,
    count_B: Int64,
    pieces: WordPieces,
    settings: MaskingSettings,
    *,
    width: int,
    bits_BR: Bits,
) -> MaskedBatch:
    """Add [CLS] and [SEP], choose what is guessed, and draw what the decoder sees.

    Args:
        tokens_BN: ids without special tokens.
        count_B: how many of them each text has; what follows is ignored.
        pieces: the tokenizer's special ids and pieces.
        settings: the rates.
        width: the longest text of the run, special tokens included.
        bits_BR: of `random_bits`, `draws_per_text(width, …)` a text; with those of a decoder,
            the batch has `visible_BLL`.
    """
    ids_BL, length_B = _add_special(tokens_BN, count_B, pieces)
    size, length = ids_BL.shape
    bits_BXL = bits_BR.reshape(size, -1, width)[:, :, :length]
    word_BL = number_words(ids_BL, length_B, pieces)
    budget_B = mask_budget(length_B, settings.encoder_rate)
    guessed_BL = choose_words(word_BL, budget_B, bits_BXL[:, :1])[:, 0]
    input_ids_BL = corrupt(ids_BL, guessed_BL, bits_BXL[:, 1], bits_BXL[:, 2], pieces)
    visible_BLL = None
    if bits_BXL.shape[1] > 3:
        visible_BLL = decoder_visibility(
            word_BL, length_B, settings.decoder_rate, bits_BXL[:, 3], bits_BXL[:, 4:]
        )
    return MaskedBatch(
        torch.from_numpy(input_ids_BL),
        torch.from_numpy(ids_BL),
        torch.from_numpy((np.arange(length) < length_B[:, None]).astype(np.int64)),
        torch.from_numpy(guessed_BL),
        torch.from_numpy(word_BL >= 0),
        None if visible_BLL is None else torch.from_numpy(visible_BLL),
    )


def _add_special(tokens_BN: Int64, count_B: Int64, pieces: WordPieces) -> tuple[Int64, Int64]:
    """Return ids (B, L) with [CLS], [SEP] and padding, and the lengths (B,)."""
    size, most = len(tokens_BN), int(count_B.max())
    ids_BL = np.full((size, most + 2), pieces.pad_id, dtype=np.int64)
    ids_BL[:, 0] = pieces.cls_id
    ids_BL[:, 1:-1] = np.where(
        np.arange(most) < count_B[:, None], tokens_BN[:, :most], pieces.pad_id
    )
    ids_BL[np.arange(size), count_B + 1] = pieces.sep_id
    return ids_BL, count_B + 2


def number_words(ids_BL: Int64, length_B: Int64, pieces: WordPieces) -> Int32:
    """Return the number of each token's word in its text (B, L), −1 for special tokens and pads.

    A '##' piece that opens a text is a word of its own.
    """
    place_L = np.arange(ids_BL.shape[1])
    ordinary_BL = (place_L >= 1) & (place_L < length_B[:, None] - 1)
    opens_BL = ordinary_BL & (~pieces.continues_V[ids_BL] | (place_L == 1))
    number_BL = np.cumsum(opens_BL, axis=1, dtype=np.int32) - 1
    return np.where(ordinary_BL, number_BL, np.int32(-1))


def mask_budget(length_B: Int64, rate: float) -> Int64:
    """Return how many tokens may be masked in texts of these lengths, special tokens counted."""
    budget_B: Int64 = np.rint(length_B * rate).astype(np.int64)
    return budget_B.clip(1, MOST_GUESSED)


def choose_words(word_BL: Int32, budget_B: Int64, bits_BML: Bits) -> Flags:
    """Choose whole words of each text in random order, M times over.

    A word that would exceed the budget is skipped; later, smaller ones may still fit.

    Args:
        word_BL: of `number_words`.
        budget_B: the most tokens that may be chosen.
        bits_BML: one draw a word that a text of L tokens can have.

    Returns:
        (B, M, L), True for the tokens of chosen words.
    """
    size = len(word_BL)
    words = max(1, int(word_BL.max()) + 1)
    ordinary_BL = word_BL >= 0
    slots = (word_BL + words * np.arange(size)[:, None])[ordinary_BL]
    tokens_BW = np.bincount(slots, minlength=size * words).reshape(size, 1, words)
    # The word's number rides in the lowest bits of its random key: sorting the keys shuffles
    # the words, several times faster than argsort.
    keys_BMW = bits_BML[:, :, :words] & ~_NUMBER_BITS | np.arange(words, dtype=np.uint64)
    keys_BMW.sort(axis=-1)
    order_BMW = (keys_BMW & _NUMBER_BITS).astype(np.int64)
    tokens_BMW = np.take_along_axis(tokens_BW.astype(np.int32), order_BMW, axis=-1)
    chosen_BMW = np.empty(tokens_BMW.shape, dtype=np.bool_)
    np.put_along_axis(chosen_BMW, order_BMW, _accept(tokens_BMW, budget_B), axis=-1)
    chosen_BML = np.take_along_axis(chosen_BMW, np.maximum(word_BL, 0)[:, None], axis=-1)
    return chosen_BML & ordinary_BL[:, None]


def _accept(tokens_BMW: Int32, budget_B: Int64) -> Flags:
    """Return which words fit, taken one after the other, each if there is still room for it.

    Each round settles, in all rows at once, the first word that does not fit: neither it nor any
    later word longer than the room then left can ever fit, as room only shrinks. The next misfit
    is thus no longer than that room and leaves less of it, so there are at most as many rounds as
    the longest word has tokens.
    """
    place_W = np.arange(tokens_BMW.shape[-1])
    taken_BMW = tokens_BMW > 0
    while True:
        total_BMW = np.cumsum(tokens_BMW * taken_BMW, axis=-1, dtype=np.int32)
        misfit_BMW = taken_BMW & (total_BMW > budget_B[:, None, None])
        if not misfit_BMW.any():
            return taken_BMW
        first_BM1 = misfit_BMW.argmax(axis=-1)[..., None]
        room_BM1 = budget_B[:, None, None] - np.take_along_axis(
            total_BMW - tokens_BMW, first_BM1, axis=-1
        )
        hopeless_BMW = (place_W >= first_BM1) & (tokens_BMW > room_BM1)
        taken_BMW &= ~(hopeless_BMW & misfit_BMW.any(axis=-1, keepdims=True))


def corrupt(
    ids_BL: Int64, guessed_BL: Flags, fate_BL: Bits, id_BL: Bits, pieces: WordPieces
) -> Int64:
    """Replace the tokens to be guessed: 80 % [MASK], 10 % any id at random, 10 % unchanged."""
    fate_BL = fate_BL >> np.uint64(32)
    masked_BL = guessed_BL & (fate_BL < int(0.8 * 2**32))
    random_BL = guessed_BL & ~masked_BL & (fate_BL < int(0.9 * 2**32))
    random_id_BL = (id_BL % np.uint64(len(pieces.continues_V))).astype(np.int64)
    return np.where(masked_BL, pieces.mask_id, np.where(random_BL, random_id_BL, ids_BL))


def decoder_visibility(
    word_BL: Int32, length_B: Int64, rate: float, pick_BL: Bits, bits_BML: Bits
) -> Flags:
    """Draw what each row of the decoder sees of its text (B, L, L).

    min(length, 256) whole-word masks are drawn for a text; each row takes one of them at random
    and hides its own token as well. So [CLS] is visible to all rows but its own, [SEP] likewise.

    Source: DupMAE, equation 5 and the authors' collator.
    """
    budget_B = mask_budget(length_B, rate)
    masks = min(MOST_MASKS, word_BL.shape[1])
    hidden_BML = choose_words(word_BL, budget_B, bits_BML[:, :masks])
    drawn_B1 = np.minimum(length_B, MOST_MASKS).astype(np.uint64)[:, None]
    picked_BL1 = (pick_BL % drawn_B1).astype(np.int64)[..., None]
    place_L = np.arange(word_BL.shape[1])
    visible_BLL = ~np.take_along_axis(hidden_BML, picked_BL1, axis=1)
    visible_BLL &= (place_L < length_B[:, None])[:, None]
    visible_BLL[:, place_L, place_L] = False
    return visible_BLL
