from __future__ import annotations

from dupmae.inputs import LONGEST_TEXT, batches, goes_on, readable, split_long

LENGTHS = [7, 3, 3, 9, 40, 2]


def test_batches_hold_every_text_once_within_the_budget():
    found = list(batches(LENGTHS, 12))
    assert sorted(place for batch in found for place in batch) == list(range(6))
    assert all(
        len(batch) == 1 or len(batch) * max(LENGTHS[place] for place in batch) <= 12
        for batch in found
    )


def test_batches_never_get_longer_so_that_memory_does_not_grow_with_them():
    assert list(batches(LENGTHS, 12)) == [[4], [3], [0], [1, 2, 5]]


def test_a_text_is_cut_to_what_its_tokens_can_need_and_lone_surrogates_become_question_marks():
    assert readable("abc" * 100, 2) == ("abc" * 100)[:128]
    assert readable("a\ud800b é", 9) == "a?b é"


def test_a_text_goes_on_where_more_than_blanks_are_left_out():
    assert not goes_on("a" * 128, 2)
    assert not goes_on("a" * 128 + " \n", 2)
    assert goes_on("a" * 128 + " b", 2)


def test_long_texts_are_cut_at_spaces_without_loss() -> None:
    text = "word " * (LONGEST_TEXT // 2)
    pieces = list(split_long(text))
    assert len(pieces) == 3
    assert "".join(pieces) == text
    assert all(len(piece) <= LONGEST_TEXT and piece.startswith((" ", "word")) for piece in pieces)
    assert list(split_long("x" * (LONGEST_TEXT + 1))) == ["x" * LONGEST_TEXT, "x"]
    assert list(split_long("short")) == ["short"]
