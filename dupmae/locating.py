"""Where terms stand in texts, as the tokenizer reads them: what snippets mark.

A BERT tokenizer reads words that blanks keep apart each for itself. So of a long text its start
will do, and where some terms only are wanted, the words that can hold them: these are few, and
tokenising takes longer than finding them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache, partial

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from dupmae.inputs import readable
from dupmae.types import Int32, Int64, TermSpans

USUAL_CHARACTERS = 6
"""Most texts give a token for every so many characters, blanks included, or more tokens."""
REMEMBERED_WORDS = 2**13
"""Words whose tokens are kept: the same common ones are asked for again and again."""
LONGEST_REMEMBERED = 64
"""Characters; what is kept takes 3 MB, and 60 MB if texts are made for it."""
MOST_OF_A_TEXT = 1 / 2
"""Where more of a text is in words that may hold a term, it is faster to read all of it at once."""

_CONTINUES = "##"
"""How the token of a word's continuation is written."""
_NOT_PLAIN = re.compile(r"[^ -~]")
"""What is not printable ASCII: a tokenizer may change it, or leave it out."""
_SET_APART = re.compile(r"[^\w ]([^ ]*[^\w ])?")
"""A token such as [SEP], found in a text before words are: it parts no letters that touch."""
_Piece = tuple[int, int, int]
"""A term, and its first character and the one behind its last."""


class TermLocator:
    """Says where terms stand; for one thread at a time, as it sets the tokenizer's truncation.

    Args:
        tokenizer: of the encoder.
        max_length: tokens of a document that are read, special ones included.
        special_ids: tokens that are no terms.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, special_ids: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._room = max_length - tokenizer.num_special_tokens_to_add(False)
        self._special_ids = frozenset(special_ids)
        self._reads_words = _reads_words(tokenizer)
        self._remembered = lru_cache(REMEMBERED_WORDS)(self._pieces)

    def locate(
        self, texts: Sequence[str], wanted: Sequence[Int32 | None] | None = None
    ) -> list[TermSpans]:
        """Return where terms stand in each text; see `LocatingEncoder`."""
        self._tokenizer.no_truncation()
        texts = [readable(text, self._max_length) for text in texts]
        if wanted is None or not self._reads_words:
            return self._all(texts)
        rest = iter(self._all([t for t, w in zip(texts, wanted, strict=True) if w is None]))
        return [
            next(rest) if terms is None else self._some(text, terms)
            for text, terms in zip(texts, wanted, strict=True)
        ]

    def _all(self, texts: Sequence[str]) -> list[TermSpans]:
        """Locate all tokens of texts, as far as these are read.

        Tokens are not cut off by the tokenizer, which takes longer than it takes to make them.
        """
        starts = [_start(text, self._max_length * USUAL_CHARACTERS) for text in texts]
        spans = []
        for text, start, encoding in zip(
            texts,
            starts,
            self._tokenizer.encode_batch(starts, add_special_tokens=False),
            strict=True,
        ):
            if len(start) < len(text) and len(encoding.ids) < self._room:
                encoding = self._tokenizer.encode(text, add_special_tokens=False)
            terms = np.array(encoding.ids[: self._room], dtype=np.int32)
            offsets = np.array(encoding.offsets[: self._room], dtype=np.int64).reshape(-1, 2)
            ordinary = ~np.isin(terms, list(self._special_ids))
            spans.append(TermSpans(terms[ordinary], offsets[ordinary, 0], offsets[ordinary, 1]))
        return spans

    def _some(self, text: str, terms: Int32) -> TermSpans:
        """Locate some terms in a text that is read whole."""
        chosen = set(terms.tolist())
        tokens = [str(self._tokenizer.id_to_token(term)) for term in chosen]
        found = []
        for first, last in _words_with(text, tokens):
            word = text[first:last]
            read = self._remembered if len(word) <= LONGEST_REMEMBERED else self._pieces
            found += [
                (t, first + start, first + end) for t, start, end in read(word) if t in chosen
            ]
        columns: Int64 = np.array(found, dtype=np.int64).reshape(-1, 3)
        return TermSpans(columns[:, 0].astype(np.int32), columns[:, 1], columns[:, 2])

    def _pieces(self, word: str) -> list[_Piece]:
        encoding = self._tokenizer.encode(word, add_special_tokens=False)
        return [
            (token, *place)
            for token, place in zip(encoding.ids, encoding.offsets, strict=True)
            if token not in self._special_ids
        ]


def _reads_words(tokenizer: Tokenizer) -> bool:
    """Say whether it reads each word for itself, and writes a word's tokens as they stand there."""
    model = tokenizer.model
    return (
        isinstance(model, WordPiece)
        and model.continuing_subword_prefix == _CONTINUES
        and isinstance(tokenizer.normalizer, BertNormalizer | None)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and all(
            _SET_APART.fullmatch(token.content)
            for token in tokenizer.get_added_tokens_decoder().values()
        )
    )


def _words_with(text: str, tokens: Sequence[str]) -> list[tuple[int, int]]:
    """Return the characters of the words between blanks that may hold one of the tokens."""
    lower = text.lower()
    if len(lower) != len(text):  # İ becomes two characters
        return [(0, len(text))]
    words = set(_words_at(text, partial(_find_not_plain, text)))
    for token in tokens:
        words.update(_words_at(text, partial(_find_token, lower, token)))
    if sum(end - start for start, end in words) > MOST_OF_A_TEXT * len(text):
        return [(0, len(text))]
    return sorted(words)


def _words_at(text: str, find: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """Yield the words that hold what `find` finds from a place on; it is below 0 at the end."""
    place = find(0)
    while place >= 0:
        end = text.find(" ", place)
        end = len(text) if end < 0 else end
        yield text.rfind(" ", 0, place) + 1, end
        place = find(end)


def _find_not_plain(text: str, start: int) -> int:
    found = _NOT_PLAIN.search(text, start)
    return -1 if found is None else found.start()


def _find_token(lower: str, token: str, start: int) -> int:
    """Return where a token may begin in plain characters of a text of small letters.

    Marks are tokens of their own. Letters and digits that touch are read as one word, of which only
    the first token is written without ##.
    """
    goes_on = token.startswith(_CONTINUES)
    piece = token.removeprefix(_CONTINUES).lower()
    place = lower.find(piece, start) if piece else -1
    while place >= 0 and piece[0].isalnum():
        if goes_on == (place > 0 and lower[place - 1].isalnum()):
            break
        place = lower.find(piece, place + 1)
    return place


def _start(text: str, characters: int) -> str:
    """Return the whole words among the first characters of a text."""
    if len(text) <= characters:
        return text
    return text[: text.rfind(" ", 0, characters) + 1]
