"""Where long texts are split into passages."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import FakeEncoder, WordReader
from hypothesis import given
from hypothesis import strategies as st

from dupmae.engine.chunking import Chunk, check_chunk, read_passages, split
from dupmae.errors import UsageError
from dupmae.types import Document


def passages(text: str, tokens: int, overlap: int = 0) -> list[str]:
    (words,) = WordReader(100).token_spans([text])
    return [text[a:b] for a, b in split(text, words, Chunk(tokens, overlap)).tolist()]


def test_a_text_that_fits_is_one_passage() -> None:
    assert passages("One two. Three four.", 4) == ["One two. Three four."]
    assert passages("", 4) == [""]
    assert passages(" \n", 4) == [" \n"]


def test_a_passage_ends_at_the_last_sentence_end_that_fits() -> None:
    text = "A b c. D e. F g h i j? K (l!) M."
    assert passages(text, 6) == ["A b c. D e.", "F g h i j?", "K (l!) M."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b “c d.” e f g h", ["a b “c d.”", "e f g h"]),
        ("a b c d\n \ne f g h", ["a b c d", "e f g h"]),
        ("a b 3.5 c e f g h", ["a b 3.5 c e", "f g h"]),
        ("a b. c d e f g h", ["a b. c d e", "f g h"]),  # an end in the first half does not count
    ],
)
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    assert passages(text, 5) == expected


def test_characters_without_blanks_are_split_at_their_stops_and_else_behind_tokens() -> None:
    text = "我们去海边。鱼很多！天黑了"
    tokens = np.array([[i, i + 1] for i in range(len(text))])
    found = split(text, tokens, Chunk(7, 0)).tolist()
    assert [text[a:b] for a, b in found] == ["我们去海边。", "鱼很多！天黑了"]
    letters = np.array([[i, i + 1] for i in range(10)])
    assert split("a" * 10, letters, Chunk(4, 1)).tolist() == [[0, 4], [3, 7], [6, 10]]


def test_the_overlap_begins_with_a_sentence_or_else_a_word() -> None:
    text = "A b c. D e. F g h. I j k. L m."
    assert passages(text, 6, 2) == ["A b c. D e.", "D e. F g h.", "g h. I j k.", "j k. L m."]
    assert passages("a b c d e f g h i", 4, 1) == ["a b c d", "d e f g", "g h i"]


def test_the_overlap_is_left_out_where_it_would_cut_a_sentence() -> None:
    assert passages("A b. C d. E f g h. I j k l.", 4, 2)[1:] == ["E f g h.", "I j k l."]
    assert passages("a b c d e f g h", 4, 1) == ["a b c d", "e f g h"]


@given(
    st.text(alphabet="ab .!?\n。", max_size=60),
    st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))),
    st.booleans(),
)
def test_every_token_is_in_a_passage_that_is_not_too_long(text, sizes, by_character) -> None:
    tokens = (
        np.array([[i, i + 1] for i, c in enumerate(text) if not c.isspace()]).reshape(-1, 2)
        if by_character
        else WordReader(9).token_spans([text])[0]
    )
    spans = split(text, tokens, Chunk(*sizes))
    assert spans[0, 0] == 0
    assert spans[-1, 1] == len(text)
    assert np.all(np.diff(spans[:, 1]) > 0)
    assert np.all(np.diff(spans[:, 0]) > 0)
    inside = (tokens[:, None, 0] >= spans[:, 0]) & (tokens[:, None, 1] <= spans[:, 1])
    assert inside.any(axis=1).all()
    assert np.all(inside.sum(axis=0) <= sizes[0])


def test_the_title_is_read_in_front_of_each_passage() -> None:
    encoder = WordReader(8)
    document = Document("d", "a b c d e f g", "The title")
    ids, truncated, (spans,) = read_passages(encoder, Chunk(5, 0), [document])
    assert [encoder.words(text) for text in ids] == ["The title a b c d", "The title e f g"]
    assert truncated == [False]
    assert spans.tolist() == [[0, 7], [8, 13]]


def test_a_title_that_leaves_no_room_is_counted() -> None:
    documents = [
        Document("d", "a b c d e", "one two three four"),
        Document("e", "a", "one two three four five six"),
        Document("f", "a", "one two three four five"),
    ]
    ids, truncated, spans = read_passages(WordReader(8), Chunk(4, 1), documents)
    assert truncated == [False, True, False]
    assert [len(found) for found in spans] == [3, 1, 1]
    assert max(map(len, ids)) == 8


@pytest.mark.parametrize("sizes", [(0, 0), (4, 4), (4, -1)])
def test_sizes_that_make_no_sense_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"at least 1 token|overlap must be from 0 to 3"):
        Chunk(*sizes)


def test_an_encoder_must_read_a_passage_whole_and_know_its_tokens() -> None:
    check_chunk(Chunk(6, 0), WordReader(8))
    with pytest.raises(UsageError, match=r"up to 6 tokens, .* found 7"):
        check_chunk(Chunk(7, 0), WordReader(8))
    with pytest.raises(UsageError, match="says where tokens lie"):
        check_chunk(Chunk(7, 0), FakeEncoder())
