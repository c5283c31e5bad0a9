from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import SPECIALS, tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from dupmae.folder import shipped_model
from dupmae.locating import TermLocator
from dupmae.types import TermSpans

ROOM = 1000
DOCS = Path(__file__).parents[1] / "docs"


def tiny_backend() -> Tokenizer:
    return tiny_tokenizer().backend_tokenizer


def locator(tokenizer: Tokenizer) -> TermLocator:
    return TermLocator(tokenizer, ROOM, {tokenizer.token_to_id(token) for token in SPECIALS})


def rows(spans: TermSpans) -> list[tuple[int, int, int]]:
    columns = spans.starts.tolist(), spans.ends.tolist(), spans.terms.tolist()
    return list(zip(*columns, strict=True))


def check_some_as_all(locating: TermLocator, text: str, terms: list[int]) -> None:
    """Assert that terms asked for alone stand where they stand among all."""
    wanted = np.array(sorted(terms), dtype=np.int32)
    (everything,) = locating.locate([text])
    (some,) = locating.locate([text], [wanted])
    assert rows(some) == [row for row in rows(everything) if row[2] in terms]


TINY = locator(tiny_backend())
ODD = [
    "é",
    "e\u0301",
    "İ",
    "\u212a",
    "\x00",
    "\x1c",
    "\t",
    "\n",
    "\u3000",
    "ß",
    "海",
    "\ud800",
    "ﬁ",
]
PIECES = [
    "ba",
    "Be",
    "bibo",
    "ka",
    "a",
    "z",
    "-",
    "'",
    "_",
    "##",
    "#ba",
    "[SEP]",
    "[sep]",
    "7",
    *ODD,
]


@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from([*PIECES, " ", " "]), st.characters()), max_size=60),
    st.sets(st.integers(0, 199), max_size=40),
)
def test_terms_asked_for_alone_stand_where_they_stand_among_all(
    pieces: list[str], terms: set[int]
) -> None:
    text = "".join(pieces)
    check_some_as_all(TINY, text, list(terms - set(range(len(SPECIALS)))))
    # Few terms, so that words are looked for: those of one word of the text.
    (everything,) = TINY.locate([text])
    for term in everything.terms[:3].tolist():
        check_some_as_all(TINY, text, [term])


def test_the_shipped_tokenizer_finds_the_same_in_real_texts() -> None:
    tokenizer = Tokenizer.from_file(str(shipped_model() / "tokenizer.json"))
    shipped, chance = locator(tokenizer), random.Random(1)
    pages = [page.read_text("utf-8") for page in sorted(DOCS.glob("*.md"))]
    texts = [text for page in pages for text in page.split("\n\n")]
    looked_for = 0
    for text in texts:
        (everything,) = shipped.locate([text])
        if 8 <= len(everything.terms) < ROOM - 2:
            terms = chance.sample(everything.terms.tolist(), 8)
            check_some_as_all(shipped, text, [*terms, tokenizer.token_to_id("the")])
            looked_for += 1
    assert looked_for > 200


def test_texts_of_which_all_terms_are_wanted_may_stand_among_others() -> None:
    ba = np.array([tiny_backend().token_to_id("ba")], dtype=np.int32)
    texts = ["ba be", "be ba", "bo ba"]
    found = TINY.locate(texts, [None, ba, None])
    assert [len(spans.terms) for spans in found] == [2, 1, 2]
    assert rows(found[1]) == [(3, 5, ba[0])]


def unlike_words(name: str) -> Tokenizer:
    """Return a tokenizer of which a word's tokens cannot be told from its letters alone."""
    backend = tiny_backend()
    if name == "pre-tokenizer":
        backend.pre_tokenizer = pre_tokenizers.Split("b", "isolated")
    elif name == "normalizer":
        backend.normalizer = normalizers.Replace("x", "ba")
    else:
        backend.add_tokens([AddedToken("ibi" if name == "letters" else "bo bo")])
    return backend


@pytest.mark.parametrize("name", ["pre-tokenizer", "normalizer", "letters", "blank"])
def test_with_a_tokenizer_that_does_not_read_words_alone_all_is_read(name: str) -> None:
    locating = locator(unlike_words(name))
    for text in ("bibibe x bo bo", "ba x be"):
        (everything,) = locating.locate([text])
        for term in everything.terms.tolist():
            (found,) = locating.locate([text], [np.array([term], dtype=np.int32)])
            assert rows(found) == rows(everything)
