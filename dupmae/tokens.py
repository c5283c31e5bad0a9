"""Texts → token ids → padded tensors, one way for training and inference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from dupmae.errors import CheckpointError
from dupmae.folder import TOKENIZER_FILES, first_line
from dupmae.inputs import TEXTS_AT_ONCE


class Tokens:
    """A fast tokenizer, and which of its ids are ordinary tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, device: torch.device | None = None):
        self.tokenizer = tokenizer
        self.device = device or torch.device("cpu")
        self.vocabulary_size = len(tokenizer)
        self._special_ids = torch.tensor(sorted(tokenizer.all_special_ids), device=self.device)

    def ids(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Return each text's ids with [CLS] and [SEP], cut to `max_length` in all."""
        ids: list[list[int]] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            ids += self.tokenizer(
                list(texts[start : start + TEXTS_AT_ONCE]), truncation=True, max_length=max_length,
                return_attention_mask=False, return_token_type_ids=False,
            )["input_ids"]  # fmt: skip
        return ids

    def batch(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Pad ids of at least one text to (B, L); return them with their attention mask (B, L)."""
        longest = max(map(len, ids))
        input_ids_BL = torch.full((len(ids), longest), self.tokenizer.pad_token_id or 0)
        mask_BL = torch.zeros(len(ids), longest, dtype=torch.long)
        for row, text in enumerate(ids):
            input_ids_BL[row, : len(text)] = torch.tensor(text)
            mask_BL[row, : len(text)] = 1
        return input_ids_BL.to(self.device), mask_BL.to(self.device)

    def ordinary(self, ids: Tensor) -> Tensor:
        """Return bool of the same shape: not [CLS], [SEP], [PAD], [MASK] or another special."""
        return ~torch.isin(ids, self._special_ids)


def read_tokenizer(folder: Path, vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Read the tokenizer and check that it suits a model of so many word embeddings."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError(f"{folder} holds no tokenizer (tokenizer.json or vocab.txt)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
    except Exception as error:  # from Rust and Python, of any kind
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be read: {first_line(error)}"
        ) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(f"the tokenizer in {folder} has no fast form (tokenizer.json)")
    if len(tokenizer) > vocabulary_size:
        raise CheckpointError(
            f"the tokenizer in {folder} knows {len(tokenizer)} tokens, "
            f"the model only {vocabulary_size}; they do not belong together"
        )
    for role in ("cls_token_id", "sep_token_id", "pad_token_id"):
        if getattr(tokenizer, role) is None:
            raise CheckpointError(f"the tokenizer in {folder} has no {role.removesuffix('_id')}")
    return tokenizer
