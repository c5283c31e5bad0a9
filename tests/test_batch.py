"""Batches: who belongs to whom, and that they are a function of the part alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import WORDS, tiny_tokenizer

from dupmae import batch as module
from dupmae.batch import BatchSource, DataSettings, join_shares
from dupmae.errors import UsageError
from dupmae.tokens import Tokens
from dupmae.trainer import Part

Rows = list[Mapping[str, Any]]


def part(step: int = 0, seed: int = 0) -> Part:
    return Part(step, 0, 1, 0, 1, torch.Generator().manual_seed(seed), nullcontext)


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., BatchSource]:
    def make(rows: Rows, **settings: Any) -> BatchSource:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = DataSettings((str(path),), **({"held_out": 0} | settings))
        return BatchSource(data, Tokens(tiny_tokenizer()), tmp_path)

    return make


def row(number: int, **more: Any) -> Mapping[str, Any]:
    return {"query": WORDS[number], "text": f"{WORDS[number]} {WORDS[number + 1]}", **more}


def test_a_querys_own_document_has_its_number_and_negatives_follow(source) -> None:
    rows = [row(0, negatives=["ba", "be", "bi"]), row(1), row(2, negatives=["bo"])]
    batch = source(rows, negatives=2, block=3).draw(part(), 3)
    assert batch.queries.texts == WORDS[:3]
    assert batch.documents.texts == [r["text"] for r in rows] + ["ba", "be", "bo"]
    assert batch.given_columns_BG.tolist() == [[0, 3, 4], [1, -1, -1], [2, 5, -1]]
    assert torch.isinf(batch.given_scores_BG).all()


def test_given_scores_stand_at_the_columns_they_are_of(source) -> None:
    rows = [
        row(0, negatives=["ba", "be", "bi"], scores=[4, 3, 2, 1]),
        row(1, negatives=["bo"]),
        row(2, negatives=["bu"], scores=[9, 8]),
    ]
    batch = source(rows, negatives=2, block=3).draw(part(), 3)
    absent = -torch.inf
    assert batch.given_scores_BG.tolist() == [[4, 3, 2], [absent] * 3, [9, 8, absent]]


def test_given_negatives_may_be_left_out(source) -> None:
    batch = source([row(0, negatives=["ba"], scores=[2, 1])]).draw(part(), 1)
    assert len(batch.documents) == 1
    assert batch.given_columns_BG.tolist() == [[0]]


def test_a_text_that_repeats_is_marked_for_every_query_it_belongs_to(source) -> None:
    text = row(0)["text"]
    rows = [row(0), {"query": "bo", "text": text}, row(1, negatives=[text])]
    batch = source(rows, negatives=1, block=3).draw(part(), 3)
    assert batch.duplicates_BN.nonzero().tolist() == [[0, 1], [0, 3], [1, 0], [1, 3]]


def test_a_text_with_a_span_cut_out_is_still_that_text(source) -> None:
    text = " ".join(WORDS[:20])
    rows = [{"query": WORDS[number], "text": text} for number in range(4)]
    batch = source(rows, span_queries=0.5, block=4).draw(part(seed=1), 4)
    assert 1 < len(set(batch.documents.texts)) <= 4, "some were cut and some were not"
    assert torch.equal(batch.duplicates_BN, ~torch.eye(4, dtype=torch.bool))


def test_the_share_of_span_queries_is_kept(source) -> None:
    rows = [{"query": "zo", "text": " ".join(WORDS[:20])}] * 10
    for share, least, most in ((0.0, 0, 0), (0.25, 20, 80), (1.0, 200, 200)):
        batch = source(rows, span_queries=share).draw(part(), 200)
        assert least <= sum(query != "zo" for query in batch.queries.texts) <= most


def test_texts_are_cut_to_their_lengths_and_the_vocabulary_holds_their_ids(source) -> None:
    rows = [{"query": " ".join(WORDS[:9]), "text": " ".join(WORDS[20:40])}]
    batch = source(rows, query_length=5, document_length=8).draw(part(), 1)
    assert [len(ids) for ids in (*batch.queries.ids, *batch.documents.ids)] == [5, 8]
    ids = [*batch.queries.ids[0][1:-1], *batch.documents.ids[0][1:-1]]
    assert batch.vocabulary.terms.tolist() == sorted(ids)


def test_a_batch_depends_on_its_part_alone(source) -> None:
    rows = [row(number % 80) for number in range(100)]
    drawn = source(rows, sampled_terms=5, span_queries=0.5)
    first, again = drawn.draw(part(3, seed=1), 8), drawn.draw(part(3, seed=1), 8)
    drawn.draw(part(4, seed=2), 8)
    assert first.queries == again.queries
    assert torch.equal(first.vocabulary.terms, again.vocabulary.terms)
    assert first.queries != drawn.draw(part(3, seed=2), 8).queries


def test_held_out_rows_are_never_drawn(source) -> None:
    rows = [row(number) for number in range(12)]
    drawn = source(rows, held_out=3, block=2)
    assert [query for query, _ in drawn.held_out()] == WORDS[9:12]
    seen = {query for step in range(60) for query in drawn.draw(part(step, step), 4).queries.texts}
    assert seen == set(WORDS[:9])


def topics() -> Rows:
    """Return 32 rows whose words are of one of four topics, in turn."""
    chance = torch.Generator().manual_seed(0)
    rows = []
    for number in range(32):
        own = WORDS[8 * (number % 4) : 8 * (number % 4) + 8]
        words = [own[place] for place in torch.randperm(8, generator=chance)[:6]]
        rows.append({"query": own[0], "text": " ".join(words)})
    return rows


def test_neighbours_of_a_block_share_words(source) -> None:
    for neighbours, most in ((False, 4), (True, 2)):
        drawn = source(topics(), block=4, neighbours=neighbours)
        found = [len(set(drawn.draw(part(step, step), 4).queries.texts)) for step in range(40)]
        assert max(found) <= most
    assert sum(found) < 60, "most blocks are of one topic"


def test_neighbours_are_ordered_once_and_held_out_rows_stay_out(
    source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = {"held_out": 3, "block": 2, "neighbours": True}
    first = source([row(number) for number in range(12)], **settings)
    (kept,) = tmp_path.glob("*.npy")
    monkeypatch.setattr(module, "neighbour_order", None)
    data = DataSettings((str(tmp_path / "rows.jsonl"),), **settings)
    again = BatchSource(data, Tokens(tiny_tokenizer()), tmp_path)
    drawn = [[s.draw(part(step, step), 4).queries.texts for step in range(60)]
             for s in (first, again)]  # fmt: skip
    assert drawn[0] == drawn[1]
    assert {query for texts in drawn[0] for query in texts} == set(WORDS[:9])
    assert list(tmp_path.glob("*neighbours*")) == [kept]


def test_files_of_one_name_are_ordered_apart(tmp_path: Path) -> None:
    for folder, rows in (("a", topics()), ("b", topics()[::-1])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
    files = tuple(str(tmp_path / folder / "rows.jsonl") for folder in "ab")
    data = DataSettings(files, neighbours=True, held_out=0)
    BatchSource(data, Tokens(tiny_tokenizer()), tmp_path / "unpacked")
    assert len(list((tmp_path / "unpacked").glob("*.npy"))) == 2


def test_files_are_drawn_by_their_shares(tmp_path: Path) -> None:
    for name, word in (("a", "ba"), ("b", "be"), ("c", "bi")):
        (tmp_path / name).write_text(json.dumps({"query": word, "text": word}) * 1)
    files = tuple(str(tmp_path / name) for name in "abc")
    data = DataSettings(files, shares=("3", "1", "0"), held_out=0)
    drawn = BatchSource(data, Tokens(tiny_tokenizer()), tmp_path)
    words = [drawn.draw(part(seed=seed), 1).queries.texts[0] for seed in range(400)]
    assert words.count("bi") == 0
    assert 260 < words.count("ba") < 340


def test_sample_texts_reach_all_over_every_file(source) -> None:
    texts = source([row(number) for number in range(60)]).sample_texts(10)
    assert 10 <= len(texts) <= 20
    assert texts[0] == row(0)["text"]
    assert texts[-1] in [row(number)["text"] for number in range(50, 60)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"files": ()}, "data.files names no training file"),
        ({"shares": ("1", "2")}, "data.shares must name one number for each"),
        ({"shares": ("much",)}, "data.shares must be numbers: .*'much'"),
        ({"shares": ("0",)}, "data.shares must not be negative, and one must be above 0"),
        ({"shares": ("nan",)}, "data.shares must not be negative"),
        ({"block": 0}, "data.block must be at least 1, found 0"),
        ({"negatives": -1}, "data.negatives must be at least 0, found -1"),
        ({"held_out": -1}, "data.held_out must be at least 0, found -1"),
        ({"query_length": 2}, "data.query_length must be at least 3, found 2"),
        ({"span_queries": 1.5}, r"data.span_queries must lie in \[0, 1\], found 1.5"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DataSettings(**({"files": ("a",)} | settings))


def test_a_file_must_hold_more_than_is_held_out(source) -> None:
    with pytest.raises(UsageError, match=r"has 2 rows, not more than data\.held_out = 2; lower"):
        source([row(0), row(1)], held_out=2)


def test_shares_of_one_process_keep_order_and_gradient() -> None:
    mine = torch.arange(6.0).view(3, 2).requires_grad_()
    joined = join_shares(mine, [2, 0, 1], 3, 1)
    assert joined.tolist() == [[2, 3], [4, 5], [0, 1]]
    (joined * torch.tensor([[1.0], [10.0], [100.0]])).sum().backward()
    assert mine.grad.tolist() == [[100, 100], [1, 1], [10, 10]]
