from __future__ import annotations

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import VOCABULARY, tiny_tokenizer

from dupmae.errors import UsageError
from dupmae.masking import (
    MaskedBatch,
    MaskingSettings,
    WordPieces,
    choose_words,
    decoder_visibility,
    draws_per_text,
    mask_batch,
    mask_budget,
    number_words,
    random_bits,
)

PAD, CLS, SEP, MASK = 0, 2, 3, 4
WORD, PIECE = 5, 6
ALTERNATING = WordPieces(CLS, SEP, PAD, MASK, np.arange(60) % 2 == 0)  # even ids continue a word
WHOLE_WORDS = WordPieces(CLS, SEP, PAD, MASK, np.zeros(60, dtype=bool))


def padded(texts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids (B, N) without special tokens, and their counts."""
    counts = np.array([len(text) for text in texts])
    tokens = np.zeros((len(texts), counts.max()), dtype=np.int64)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = text
    return tokens, counts


def with_special(texts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    tokens, counts = padded([[CLS, *text, SEP] for text in texts])
    return tokens, counts


def masked(
    texts: list[list[int]],
    pieces: WordPieces = ALTERNATING,
    *,
    seed: int = 0,
    first: int = 0,
    width: int = 0,
) -> MaskedBatch:
    tokens, counts = padded(texts)
    width = width or int(counts.max()) + 2
    bits = random_bits(seed, first, len(texts), draws_per_text(width, decoder=True))
    return mask_batch(tokens, counts, pieces, MaskingSettings(), width=width, bits_BR=bits)


def greedy_by_hand(text: list[int], budget: int, bits: np.ndarray) -> list[int]:
    """Return the chosen positions of [CLS] text [SEP], as the authors' loop would have them."""
    words: list[list[int]] = []
    for position, token in enumerate(text, start=1):
        if words and ALTERNATING.continues_V[token]:
            words[-1].append(position)
        else:
            words.append([position])
    shuffled = sorted(range(len(words)), key=lambda w: int(bits[w]) >> 16 << 16 | w)
    chosen: list[int] = []
    for word in shuffled:
        if len(chosen) >= budget:
            break
        if len(chosen) + len(words[word]) > budget:
            continue
        chosen += words[word]
    return sorted(chosen)


texts_strategy = st.lists(
    st.lists(st.integers(5, 59) | st.sampled_from([6, 8]), min_size=1, max_size=40),
    min_size=1,
    max_size=5,
)


@settings(max_examples=examples(60))
@given(texts_strategy, st.integers(1, 20), st.integers(0, 2**32))
def test_words_are_accepted_as_by_the_authors_greedy_loop(texts, budget, seed) -> None:
    ids, lengths = with_special(texts)
    bits = np.random.PCG64(seed).random_raw((len(texts), 3, ids.shape[1]))
    budgets = np.full(len(texts), budget)
    chosen = choose_words(number_words(ids, lengths, ALTERNATING), budgets, bits)
    for row, text in enumerate(texts):
        for draw in range(3):
            expected = greedy_by_hand(text, budget, bits[row, draw])
            assert np.flatnonzero(chosen[row, draw]).tolist() == expected


@settings(max_examples=examples(50))
@given(texts_strategy, st.integers(0, 2**32))
def test_words_are_never_split_and_special_tokens_never_guessed(texts, seed) -> None:
    batch = masked(texts, seed=seed)
    ids, lengths = with_special(texts)
    words = number_words(ids, lengths, ALTERNATING)
    guessed = batch.guessed_BL.numpy()
    assert np.array_equal(batch.ordinary_BL.numpy(), words >= 0)
    assert not guessed[words < 0].any()
    assert np.array_equal(batch.original_ids_BL.numpy(), ids)
    unguessed = batch.input_ids_BL.numpy()[~guessed]
    assert np.array_equal(unguessed, ids[~guessed])
    for row in range(len(texts)):
        for word in range(words[row].max() + 1):
            assert len(set(guessed[row][words[row] == word].tolist())) == 1
    assert (guessed.sum(axis=1) <= mask_budget(lengths, 0.3)).all()


def test_a_piece_that_opens_a_text_is_a_word_of_its_own() -> None:
    ids, lengths = with_special([[PIECE, PIECE, WORD, PIECE]])
    assert number_words(ids, lengths, ALTERNATING).tolist() == [[-1, 0, 0, 1, 1, -1]]


def test_three_in_ten_tokens_are_guessed_when_every_word_is_one_token() -> None:
    batch = masked([[7] * 98, [7] * 8, [7]], WHOLE_WORDS)
    # round(.3 × 100), round(.3 × 10), and round(.3 × 3) = 1: special tokens count in the length.
    assert batch.guessed_BL.sum(dim=1).tolist() == [30, 3, 1]


def test_at_most_512_tokens_are_guessed() -> None:
    assert mask_budget(np.array([3000, 2, 5]), 0.3).tolist() == [512, 1, 2]


def test_nothing_is_guessed_where_every_word_exceeds_the_budget() -> None:
    batch = masked([[WORD, PIECE, PIECE, PIECE]])  # one word of four, a budget of two
    assert not batch.guessed_BL.any()


def test_guessed_tokens_become_masks_random_ids_or_stay_as_8_to_1_to_1() -> None:
    batch = masked([[7] * 198 for _ in range(100)], WHOLE_WORDS)
    read = batch.input_ids_BL[batch.guessed_BL]
    assert len(read) == 6000
    share = torch.bincount(read, minlength=60) / 6000
    assert share[MASK] == pytest.approx(0.8 + 0.1 / 60, abs=0.015)  # 3 standard deviations
    assert share[7] == pytest.approx(0.1 + 0.1 / 60, abs=0.012)
    others = [i for i in range(60) if i not in (MASK, 7)]
    assert share[others].sum() == pytest.approx(0.1 * 58 / 60, abs=0.012)
    assert (share[others] > 0).all()


def test_every_word_is_guessed_equally_often() -> None:
    batch = masked([[7] * 18 for _ in range(2000)], WHOLE_WORDS)
    frequency = batch.guessed_BL[:, 1:-1].double().mean(dim=0)
    # 6 of 18 words; a standard deviation of .0105 over 2,000 texts.
    assert torch.allclose(frequency, torch.full((18,), 1 / 3, dtype=torch.float64), atol=0.045)


@settings(max_examples=examples(50))
@given(texts_strategy, st.integers(0, 2**32))
def test_decoder_rows_see_cls_and_sep_but_neither_themselves_nor_padding(texts, seed) -> None:
    batch = masked(texts, seed=seed)
    visible = batch.visible_BLL
    assert visible is not None
    for row, text in enumerate(texts):
        length = len(text) + 2
        own = visible[row, :length, :length]
        assert own[1:, 0].all()
        assert own[:-1, -1].all()
        assert not own.diagonal().any()
        assert not visible[row, :, length:].any()


@settings(max_examples=examples(40))
@given(texts_strategy, st.integers(0, 2**32))
def test_each_decoder_row_hides_one_of_the_drawn_masks_and_itself(texts, seed) -> None:
    ids, lengths = with_special(texts)
    words = number_words(ids, lengths, ALTERNATING)
    longest = ids.shape[1]
    bits = np.random.PCG64(seed).random_raw((len(texts), longest + 1, longest))
    visible = decoder_visibility(words, lengths, 0.5, bits[:, 0], bits[:, 1:])
    budgets = mask_budget(lengths, 0.5)
    for b, text in enumerate(texts):
        for row in range(lengths[b]):
            pick = int(bits[b, 0, row]) % min(int(lengths[b]), 256)
            hidden = set(greedy_by_hand(text, int(budgets[b]), bits[b, 1 + pick])) | {row}
            expected = [p not in hidden and p < lengths[b] for p in range(longest)]
            assert visible[b, row].tolist() == expected


def test_decoder_rows_see_half_of_the_text() -> None:
    batch = masked([[7] * 98 for _ in range(4)], WHOLE_WORDS)
    assert batch.visible_BLL is not None
    hidden = (~batch.visible_BLL[:, 1:-1]).sum(dim=-1)
    assert set(hidden.flatten().tolist()) == {50, 51}  # with the row's own token or besides it


def test_texts_longer_than_256_tokens_draw_256_masks() -> None:
    batch = masked([[7] * 298], WHOLE_WORDS)
    assert batch.visible_BLL is not None
    rows = batch.visible_BLL[0].clone()
    rows.fill_diagonal_(fill_value=True)
    assert len(rows.unique(dim=0)) <= 2 * 256  # a mask, with or without the row's own token
    assert draws_per_text(300, decoder=True) == 300 * (4 + 256)


def test_masks_do_not_depend_on_the_batch_or_its_padding() -> None:
    texts = [[7, 8, 9, 10], [11] * 20, [13, 14], [15, 16, 18, 17, 20]]
    whole = masked(texts, width=32)
    for number, text in enumerate(texts):
        alone = masked([text], first=number, width=32)
        length = len(text) + 2
        assert torch.equal(alone.input_ids_BL[0], whole.input_ids_BL[number, :length])
        assert alone.visible_BLL is not None
        assert whole.visible_BLL is not None
        seen = whole.visible_BLL[number, :length, :length]
        assert torch.equal(alone.visible_BLL[0], seen)


def test_the_same_text_gets_other_masks_later_in_the_run() -> None:
    text = [list(range(7, 37))]
    assert not torch.equal(masked(text).guessed_BL, masked(text, first=1).guessed_BL)
    assert not torch.equal(masked(text).guessed_BL, masked(text, seed=1).guessed_BL)


def test_without_decoder_draws_there_is_no_visibility() -> None:
    tokens, counts = padded([[7] * 10])
    bits = random_bits(0, 0, 1, draws_per_text(12, decoder=False))
    batch = mask_batch(tokens, counts, WHOLE_WORDS, MaskingSettings(), width=12, bits_BR=bits)
    assert batch.visible_BLL is None
    assert batch.guessed_BL.sum() == 4


def test_pieces_are_read_off_the_tokenizer() -> None:
    pieces = WordPieces.from_tokenizer(tiny_tokenizer())
    expected = [token.startswith("##") for token in VOCABULARY]
    assert pieces.continues_V.tolist() == expected
    special = (pieces.pad_id, pieces.cls_id, pieces.sep_id, pieces.mask_id)
    assert special == (0, 2, 3, 4)


def test_rates_outside_0_to_1_are_refused() -> None:
    with pytest.raises(UsageError, match=r"masking\.encoder_rate must lie between 0 and 1"):
        MaskingSettings(encoder_rate=1.0)
