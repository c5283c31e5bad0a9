from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertTokenizerFast

from dupmae.errors import DataError, UsageError
from dupmae.packing import BlockCutter, CorpusSettings, TokenBlocks, open_corpus

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *"abcdefgh", "##a", "##b"]


def tokenizer() -> BertTokenizerFast:
    """Return a tokenizer of eight letters, two continuations and the full stop."""
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return BertTokenizerFast(tokenizer_object=backend)


def cut(text: str, **lengths: int) -> list[str]:
    """Return the blocks of a text as strings."""
    made = tokenizer()
    cutter = BlockCutter(made, CorpusSettings(**lengths))
    ids = made(text, add_special_tokens=False)["input_ids"]
    return [
        " ".join(made.convert_ids_to_tokens(block.tolist())) for block in cutter.cut(np.array(ids))
    ]


def read_all(blocks: TokenBlocks) -> list[list[int]]:
    tokens, counts = blocks.read(np.arange(len(blocks)))
    return [row[:count].tolist() for row, count in zip(tokens, counts, strict=True)]


def test_a_block_ends_with_the_last_sentence_that_fits() -> None:
    assert cut("a b . c d . e f g .", max_length=9, min_tokens=1) == ["a b . c d .", "e f g ."]


def test_a_block_without_a_late_sentence_end_ends_with_a_whole_word() -> None:
    # Six tokens fit; the sentence ends in the first half, and the sixth word goes on.
    assert cut("a . c d e ba f g", max_length=8, min_tokens=1) == ["a . c d e", "b ##a f g"]


def test_a_block_of_one_endless_word_ends_where_it_is_full() -> None:
    blocks = cut("a" * 10, max_length=6, min_tokens=1)
    assert [len(block.split()) for block in blocks] == [4, 4, 2]


def test_a_short_rest_is_left_out() -> None:
    assert cut("a b c d e f", max_length=6, min_tokens=3) == ["a b c d"]
    assert cut("a b", max_length=6, min_tokens=3) == []


@settings(max_examples=examples(60))
@given(st.text(alphabet="abcdefgh. ", max_size=120), st.integers(4, 20), st.integers(1, 20))
def test_blocks_lose_nothing_but_a_short_end_and_keep_their_lengths(text, longest, least) -> None:
    least = min(least, longest - 2)
    made = tokenizer()
    ids = made(text, add_special_tokens=False)["input_ids"]
    cutter = BlockCutter(made, CorpusSettings(max_length=longest, min_tokens=least))
    blocks = [block.tolist() for block in cutter.cut(np.array(ids, dtype=np.int64))]
    joined = [token for block in blocks for token in block]
    assert joined == ids[: len(joined)]
    assert len(ids) - len(joined) < least
    assert all(least <= len(block) <= longest - 2 for block in blocks)


def test_texts_are_never_mixed_in_a_block(tmp_path: Path) -> None:
    settings = CorpusSettings(max_length=10, min_tokens=1)
    blocks = open_corpus(settings, tokenizer(), tmp_path, texts=["a a a", "b b", "c"])
    assert read_all(blocks) == [[6, 6, 6], [7, 7], [8]]


def test_blocks_are_read_in_any_order_and_padded_with_0(tmp_path: Path) -> None:
    settings = CorpusSettings(max_length=10, min_tokens=1)
    blocks = open_corpus(settings, tokenizer(), tmp_path, texts=["a a a", "b b", "c"])
    tokens, counts = blocks.read(np.array([2, 0, 2]))
    assert tokens.tolist() == [[8, 0, 0], [6, 6, 6], [8, 0, 0]]
    assert counts.tolist() == [1, 3, 1]
    assert tokens.dtype == np.int64
    assert blocks.read(np.array([], dtype=np.int64))[0].shape == (0, 0)


def test_ids_take_two_bytes_on_disk(tmp_path: Path) -> None:
    settings = CorpusSettings(max_length=10, min_tokens=1)
    open_corpus(settings, tokenizer(), tmp_path, texts=["a a a", "b b"])
    assert (tmp_path / "tokens.bin").stat().st_size == 2 * 5


def test_files_of_every_kind_come_after_each_other(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"title": "a", "text": "b"}\n')
    (tmp_path / "two.txt").write_text("c\n\nd")
    files = (str(tmp_path / "one.jsonl"), str(tmp_path / "two.txt"))
    settings = CorpusSettings(files=files, min_tokens=1)
    blocks = open_corpus(settings, tokenizer(), tmp_path / "corpus", texts=["not used"])
    assert read_all(blocks) == [[6, 7], [8], [9]]


def test_an_unchanged_corpus_is_not_tokenised_again(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("a b c")
    settings = CorpusSettings(files=(str(path),), min_tokens=1)
    open_corpus(settings, tokenizer(), tmp_path / "corpus")
    before = (tmp_path / "corpus" / "tokens.bin").stat().st_mtime_ns
    os.utime(path)  # its time says nothing
    blocks = open_corpus(settings, tokenizer(), tmp_path / "corpus", resuming=True)
    assert (tmp_path / "corpus" / "tokens.bin").stat().st_mtime_ns == before
    assert read_all(blocks) == [[6, 7, 8]]


def test_a_changed_corpus_is_tokenised_anew_unless_a_run_goes_on(tmp_path: Path) -> None:
    settings = CorpusSettings(min_tokens=1)
    folder = tmp_path / "run" / "corpus"
    open_corpus(settings, tokenizer(), folder, texts=["a b"])
    with pytest.raises(DataError, match=r"the corpus is not the one that the run in .*run began"):
        open_corpus(settings, tokenizer(), folder, texts=["a c"], resuming=True)
    assert read_all(open_corpus(settings, tokenizer(), folder, texts=["a c"])) == [[6, 8]]
    longer = CorpusSettings(max_length=64, min_tokens=1)
    open_corpus(longer, tokenizer(), folder, texts=["a c"])
    with pytest.raises(DataError, match="the corpus is not the one"):
        open_corpus(settings, tokenizer(), folder, texts=["a c"], resuming=True)
    with pytest.raises(DataError, match="the corpus is not the one"):
        open_corpus(longer, tiny_tokenizer(), folder, texts=["a c"], resuming=True)


def test_an_interrupted_packing_is_done_again(tmp_path: Path) -> None:
    settings = CorpusSettings(min_tokens=1)
    open_corpus(settings, tokenizer(), tmp_path, texts=["a b"])
    (tmp_path / "corpus.json").unlink()
    (tmp_path / "tokens.bin").write_bytes(b"\0")
    assert read_all(open_corpus(settings, tokenizer(), tmp_path, texts=["a b"])) == [[6, 7]]


def test_other_processes_wait_for_the_first(tmp_path: Path, monkeypatch) -> None:
    settings = CorpusSettings(min_tokens=1)
    monkeypatch.setenv("RANK", "1")
    found: list[int] = []
    waiting = threading.Thread(
        target=lambda: found.append(len(open_corpus(settings, tokenizer(), tmp_path, texts=["a"])))
    )
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("RANK", "0")
    open_corpus(settings, tokenizer(), tmp_path, texts=["a"])
    waiting.join(20)
    assert found == [1]


def test_a_corpus_without_a_long_enough_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text with 8 tokens or more in the given texts"):
        open_corpus(CorpusSettings(), tokenizer(), tmp_path, texts=["a b c"])
    assert not (tmp_path / "corpus.json").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "corpus").write_text("a file stands in the way")
    with pytest.raises(DataError, match=r"cannot be written to .*corpus \(File exists\)"):
        open_corpus(CorpusSettings(), tokenizer(), tmp_path / "corpus", texts=["a b"])


def test_what_lies_in_the_folder_is_described(tmp_path: Path) -> None:
    open_corpus(CorpusSettings(min_tokens=1), tokenizer(), tmp_path, texts=["a b", "c"])
    facts = json.loads((tmp_path / "corpus.json").read_text())
    assert (facts["blocks"], facts["tokens"], facts["dtype"]) == (2, 3, "<u2")


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"max_length": 3}, r"corpus\.max_length must lie in \[4, 32768\], found 3"),
        ({"min_tokens": 0}, r"corpus\.min_tokens must lie between 1 and max_length"),
        ({"max_length": 8, "min_tokens": 7}, r"max_length − 2 = 6, found 7"),
    ],
)
def test_lengths_out_of_range_are_refused(lengths: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CorpusSettings(**lengths)
