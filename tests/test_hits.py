"""Hits are kept as columns and read as a sequence."""

from __future__ import annotations

from operator import eq

import pytest

from dupmae.results import Hit, Hits, RankedIds
from dupmae.types import Passage

ROWS = [Hit("a", 3.0, 2.0, 1.0), Hit("b", 2.0, 0.5, 1.5), Hit("c", 1.0, 1.0, 0.0)]
HITS = Hits(*zip(*(row[:4] for row in ROWS), strict=True))


def test_hits_are_a_sequence_of_what_their_columns_hold():
    assert (list(HITS), len(HITS), HITS[0], HITS[-1]) == (ROWS, 3, ROWS[0], ROWS[2])
    assert (list(reversed(HITS)), ROWS[1] in HITS, HITS.index(ROWS[1])) == (ROWS[::-1], True, 1)
    with pytest.raises(IndexError):
        HITS[3]


def test_a_slice_has_all_columns():
    some = HITS[1:]
    assert isinstance(some, Hits)
    assert (list(some), list(some.doc_ids), list(some.scores)) == (ROWS[1:], ["b", "c"], [2.0, 1.0])


def test_hits_equal_any_sequence_of_the_same_and_hash_alike():
    for same in (ROWS, tuple(ROWS), HITS[:]):
        assert eq(HITS, same)
        assert eq(same, HITS)
    assert hash(HITS) == hash(HITS[:]) == hash(tuple(ROWS))
    for other in (ROWS[:2], [*ROWS[:2], ROWS[2]._replace(sparse=1.0)], None, 3):
        assert not eq(HITS, other)


def test_a_hit_has_its_passage_where_documents_are_split():
    passages = [Passage(number, 10 * number, 10 * number + 5) for number in (4, 2)]
    hits = Hits(["a", "b"], [2.0, 1.0], [1.0, 1.0], [1.0, 0.0], passages)
    assert [hit.passage for hit in hits] == [hits[0].passage, hits[1].passage] == passages
    assert HITS[0].passage is None


def test_ids_and_scores_are_a_sequence_of_pairs_without_a_copy():
    ranked = HITS.ranked()
    pairs = [(row.doc_id, row.score) for row in ROWS]
    assert (list(ranked), ranked[0], ranked[1:]) == (pairs, pairs[0], pairs[1:])
    assert isinstance(ranked[1:], RankedIds)
    assert ranked.doc_ids is HITS.doc_ids
    assert ranked.scores is HITS.scores


def test_there_may_be_no_hits_but_no_columns_of_different_lengths():
    assert (list(Hits()), len(Hits()), Hits() == ()) == ([], 0, True)
    with pytest.raises(ValueError, match="columns of 2, 1, 1, 1 hits"):
        Hits(["a", "b"], [1.0], [1.0], [0.0])
