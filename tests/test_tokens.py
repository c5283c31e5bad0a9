"""Texts become ids and padded tensors in one way, and special tokens are told apart."""

from __future__ import annotations

import torch
from tiny_model import VOCABULARY, WORDS, tiny_tokenizer

from dupmae.tokens import TEXTS_AT_ONCE, Tokens

TOKENS = Tokens(tiny_tokenizer())
PAD, UNKNOWN, CLS, SEP, MASK = range(5)


def test_ids_stand_between_cls_and_sep_and_are_cut_to_the_length() -> None:
    words = [VOCABULARY.index(word) for word in WORDS[:6]]
    text = " ".join(WORDS[:6])
    assert TOKENS.ids([text, "", WORDS[3]], 6) == [
        [CLS, *words[:4], SEP],
        [CLS, SEP],
        [CLS, words[3], SEP],
    ]
    assert TOKENS.ids([], 6) == []
    many = [text, WORDS[3]] * TEXTS_AT_ONCE
    assert TOKENS.ids(many, 6) == TOKENS.ids(many[:2], 6) * TEXTS_AT_ONCE


def test_a_batch_is_padded_on_the_right_and_masked() -> None:
    input_ids, mask = TOKENS.batch([[CLS, 9, SEP], [CLS, SEP]])
    assert input_ids.tolist() == [[CLS, 9, SEP], [CLS, SEP, PAD]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert input_ids.dtype == mask.dtype == torch.int64


def test_ordinary_tokens_are_all_but_the_specials() -> None:
    ids = torch.tensor([[PAD, UNKNOWN, CLS], [SEP, MASK, 5]])
    assert TOKENS.ordinary(ids).tolist() == [[False] * 3, [False, False, True]]
    everything = TOKENS.ordinary(torch.arange(TOKENS.vocabulary_size))
    assert everything.sum() == len(VOCABULARY) - 5
