"""Pre-training text → blocks of tokens in one memory-mapped file, read by number.

A block is a stretch of one text, never of two, that ends where a sentence ends if it can. Texts
are tokenised once into the run's folder and found there again when a run is resumed:

    tokens.bin     the ids of all blocks, one after the other, without special tokens
    offsets.npy    (blocks + 1,) int64, where each block starts
    corpus.json    what they were made of; written last

Left out: reading files (`texts.py`), special tokens and masks (`masking.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from dupmae.errors import DataError, UsageError
from dupmae.files import replacing
from dupmae.inputs import LONGEST_TEXT, split_long
from dupmae.texts import check_text_file, read_texts
from dupmae.types import Int64

_FORMAT = 1
_TOKENIZED_AT_ONCE = 256
_SENTENCE_ENDS = (".", "!", "?", "。")


@dataclass(frozen=True)
class CorpusSettings:
    """The text to pre-train on, and how it is cut."""

    files: tuple[str, ...] = ()
    """Text files (`texts.py`): `.jsonl` or `.txt`, plain or with .gz or .xz added."""
    max_length: int = 128
    """Tokens of a block at most, [CLS] and [SEP] included."""
    min_tokens: int = 8
    """Blocks with fewer tokens are left out."""

    def __post_init__(self) -> None:
        if not 4 <= self.max_length <= 2**15:
            raise UsageError(f"corpus.max_length must lie in [4, 32768], found {self.max_length}")
        if not 1 <= self.min_tokens <= self.max_length - 2:
            raise UsageError(
                f"corpus.min_tokens must lie between 1 and max_length − 2 = {self.max_length - 2}, "
                f"found {self.min_tokens}"
            )


class TokenBlocks:
    """Blocks of tokens on disk."""

    def __init__(self, folder: Path) -> None:
        """Open what `pack` wrote."""
        facts = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        self._offsets: Int64 = np.load(folder / "offsets.npy")
        self._tokens = np.memmap(folder / "tokens.bin", dtype=facts["dtype"], mode="r")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def read(self, numbers: Int64) -> tuple[Int64, Int64]:
        """Return the blocks' ids (B, N) and how many each has (B,); the rest of a row is 0."""
        start_B = self._offsets[numbers]
        count_B = self._offsets[numbers + 1] - start_B
        place_N = np.arange(count_B.max(initial=0))
        inside_BN = place_N < count_B[:, None]
        tokens_BN = np.zeros(inside_BN.shape, dtype=np.int64)
        tokens_BN[inside_BN] = self._tokens[(start_B[:, None] + place_N)[inside_BN]]
        return tokens_BN, count_B


def open_corpus(
    settings: CorpusSettings,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    texts: Sequence[str] = (),
    resuming: bool = False,
) -> TokenBlocks:
    """Return the corpus as blocks, packing it into `folder` unless it lies there already.

    Of several processes started by torchrun, the first packs and the others wait for it.

    Args:
        settings: the files and the cut.
        tokenizer: its ids are stored.
        folder: of this corpus alone.
        texts: used when `settings.files` is empty.
        resuming: the corpus must be the one that lies there.

    Raises:
        DataError: a file is missing or no text, nothing is left to train on, a resumed run's
            corpus has changed, or the folder cannot be written.
    """
    files = [Path(name) for name in settings.files]
    for path in files:
        check_text_file(path)
    fingerprint = _fingerprint(settings, tokenizer, files, texts)
    if os.environ.get("RANK", "0") != "0":
        while not _is_packed(folder, fingerprint):
            time.sleep(0.2)
    elif not _is_packed(folder, fingerprint):
        if resuming:
            raise DataError(
                f"the corpus is not the one that the run in {folder.parent} began with; "
                "give it the same texts, or start a new run in another folder"
            )
        source = chain.from_iterable(map(read_texts, files)) if files else texts
        try:
            pack(source, settings, tokenizer, folder, fingerprint)
        except OSError as error:  # of writing: those of reading have been named by `read_texts`
            raise DataError(
                f"the packed corpus cannot be written to {folder} ({error.strerror}); "
                "free some space or choose another run folder"
            ) from error
    return TokenBlocks(folder)


def pack(
    texts: Iterable[str],
    settings: CorpusSettings,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    fingerprint: str,
) -> None:
    """Tokenise texts, cut them into blocks and write these, `corpus.json` last.

    Memory holds a few hundred texts and 8 bytes a block, however long the corpus is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus.json").unlink(missing_ok=True)
    dtype = np.dtype("<u2" if len(tokenizer) <= 2**16 else "<u4")
    cutter = BlockCutter(tokenizer, settings)
    offsets = array("q", [0])
    with replacing(folder / "tokens.bin") as file:
        for ids in _tokenize(texts, tokenizer):
            for block in cutter.cut(ids):
                file.write(block.astype(dtype).tobytes())
                offsets.append(offsets[-1] + len(block))
    if len(offsets) == 1:
        raise DataError(
            f"no text with {settings.min_tokens} tokens or more in "
            f"{', '.join(settings.files) or 'the given texts'}; lower corpus.min_tokens or add text"
        )
    with replacing(folder / "offsets.npy") as file:
        np.save(file, np.asarray(offsets, dtype=np.int64))
    facts = {"fingerprint": fingerprint, "dtype": dtype.str, "blocks": len(offsets) - 1}
    with replacing(folder / "corpus.json") as file:
        file.write(json.dumps(facts | {"tokens": offsets[-1]}).encode())


class BlockCutter:
    """Cuts a text's ids into blocks."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: CorpusSettings) -> None:
        tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self._ends_sentence_V = np.isin(tokens, _SENTENCE_ENDS)
        self._opens_word_V = np.array([not token.startswith("##") for token in tokens])
        self._limit = settings.max_length - 2
        self._least = settings.min_tokens

    def cut(self, ids: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Yield the blocks of one text.

        A block ends with the last sentence that ends in its second half; if none does, with the
        last whole word; if there is none either, where it is full.
        """
        start = 0
        while len(ids) - start > self._limit:
            end = start + self._end(ids[start : start + self._limit + 1])
            yield ids[start:end]
            start = end
        if len(ids) - start >= self._least:
            yield ids[start:]

    def _end(self, window: NDArray[np.int64]) -> int:
        """Return how many of the limit + 1 given ids make a block."""
        least = max(self._least, self._limit // 2)
        for allowed in (self._ends_sentence_V[window[:-1]], self._opens_word_V[window[1:]]):
            ends = np.flatnonzero(allowed[least - 1 :])
            if len(ends):
                return least + int(ends[-1])
        return self._limit


def _tokenize(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerFast
) -> Iterator[NDArray[np.int64]]:
    bar = tqdm(unit="text", desc="tokenising", disable=None, dynamic_ncols=True)
    with bar:
        for batch in _batches(chain.from_iterable(map(split_long, texts))):
            encoded = tokenizer(
                batch,
                add_special_tokens=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,  # longer than the model reads is no mistake here
            )
            yield from (np.array(ids, dtype=np.int64) for ids in encoded["input_ids"])
            bar.update(len(batch))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == _TOKENIZED_AT_ONCE or characters >= LONGEST_TEXT:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _fingerprint(
    settings: CorpusSettings,
    tokenizer: PreTrainedTokenizerFast,
    files: Sequence[Path],
    texts: Sequence[str],
) -> str:
    """Return a digest of everything that decides the blocks."""
    digest = hashlib.sha256(
        json.dumps([_FORMAT, settings.max_length, settings.min_tokens, len(files)]).encode()
    )
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    for path in files:
        content = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                content.update(chunk)
        digest.update("".join(path.suffixes[-2:]).encode() + content.digest())
    for text in () if files else texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()


def _is_packed(folder: Path, fingerprint: str) -> bool:
    try:
        facts = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(facts["fingerprint"] == fingerprint)
