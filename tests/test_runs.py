"""Facts about runs and their TREC files."""

from __future__ import annotations

import errno
import gzip
import math
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from dupmae.errors import DataError
from dupmae.eval.files import replacing_text
from dupmae.eval.runs import falling_scores, read_run, run_lines, write_run

TINY = float(np.finfo(np.float32).tiny)


def below(value: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(-math.inf)))


def test_scores_that_fall_in_single_precision_are_kept_with_all_digits() -> None:
    scores = [12.300000000000001, 12.29, 1e-7, 0.0, -3.0000000000000004]
    assert falling_scores(scores) == scores


def test_equal_scores_fall_by_one_step_each() -> None:
    assert falling_scores([1.0, 1.0, 1.0, 0.5]) == [1.0, below(1.0), below(below(1.0)), 0.5]
    assert falling_scores([-1.0, -1.0]) == [-1.0, below(-1.0)]


def test_scores_that_differ_only_in_double_precision_count_as_equal() -> None:
    assert falling_scores([1.0 + 1e-12, 1.0]) == [1.0 + 1e-12, below(1.0)]


def test_a_score_that_was_overtaken_by_ties_above_it_falls_too() -> None:
    second = below(1.0)
    assert falling_scores([1.0, 1.0, second]) == [1.0, second, below(second)]


def test_steps_around_zero_skip_subnormal_numbers() -> None:
    assert falling_scores([TINY, TINY, 0.0, 0.0]) == [TINY, 0.0, -TINY, below(-TINY)]
    assert falling_scores([1e-40, 0.0]) == [1e-40, -TINY]


def test_an_empty_ranking_stays_empty() -> None:
    assert falling_scores([]) == []


@pytest.mark.parametrize("scores", [[1.0, 2.0], [math.nan], [math.inf], [-math.inf], [3e38]])
def test_scores_that_are_no_ranking_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="scores must"):
        falling_scores(scores)


SCORES = st.lists(
    st.one_of(
        st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-9, -1.0, TINY, -TINY, 1e-40, -1e-40, 5e-324]),
        st.floats(-1e30, 1e30),
    ),
    max_size=60,
)


@given(SCORES)
def test_falling_scores_fall_in_both_precisions_and_stay_near(scores: list[float]) -> None:
    scores = sorted(scores, reverse=True)
    falling = falling_scores(scores)
    assert np.all(np.diff(falling) < 0)
    assert np.all(np.diff(np.array(falling, dtype=np.float32)) < 0)
    for before, after in zip(scores, falling, strict=True):
        assert after <= before
        assert before - after <= len(scores) * max(abs(before) * 1.3e-7, TINY * 1.1)


def test_a_line_has_the_six_fields_of_trec() -> None:
    run = {"q1": [("d2", 2.5), ("d1", 2.5)], "q2": []}
    assert list(run_lines(run, tag="mine")) == [
        f"q1 Q0 d2 1 2.5 mine\nq1 Q0 d1 2 {below(2.5)!r} mine\n"
    ]


def test_a_run_survives_its_file_in_order(tmp_path: Path) -> None:
    run = {"q2": [("b", 1.0), ("c", 1.0), ("a", 1.0)], "q1": [("x", 0.1), ("ü", 0.1 - 1e-9)]}
    write_run(run, tmp_path / "new" / "run.trec")
    read = read_run(tmp_path / "new" / "run.trec")
    assert {query_id: [doc_id for doc_id, _ in hits] for query_id, hits in read.items()} == {
        "q2": ["b", "c", "a"],
        "q1": ["x", "ü"],
    }
    write_run(read, tmp_path / "again.trec")
    assert (tmp_path / "again.trec").read_bytes() == (tmp_path / "new" / "run.trec").read_bytes()


def test_trec_eval_sees_our_order_where_it_would_have_chosen_another(tmp_path: Path) -> None:
    # Ties: trec_eval takes the last id in the alphabet first, so "a" would come third.
    run = {"q": [("a", 1.0), ("b", 1.0), ("c", 1.0 - 1e-12)]}
    write_run(run, tmp_path / "run.trec")
    evaluator = pytrec_eval.RelevanceEvaluator({"q": {"a": 1}}, {"recip_rank"})
    with (tmp_path / "run.trec").open() as stream:
        from_file = pytrec_eval.parse_run(stream)
    assert evaluator.evaluate(from_file)["q"]["recip_rank"] == 1.0
    untouched = {"q": dict(run["q"])}
    assert evaluator.evaluate(untouched)["q"]["recip_rank"] == pytest.approx(1 / 3)


def test_a_run_of_others_is_read_in_the_order_of_trec_eval(tmp_path: Path) -> None:
    lines = ["q Q0 a 1 1.0 x", "q\tQ0\tc\t2\t1.0\tx", "q Q0 b 3 1.00000000001 x", "q Q0 z 9 7 x"]
    (tmp_path / "run.gz").write_bytes(gzip.compress("\r\n".join(lines).encode()))
    assert [doc_id for doc_id, _ in read_run(tmp_path / "run.gz")["q"]] == ["z", "c", "b", "a"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 d 1 1.0", "line 2: expected the six fields .* found 5: q Q0 d 1 1.0"),
        ("q Q0 d 1 high tag", "line 2: the score must be a finite number below .*, found 'high'"),
        ("q Q0 d 1 nan tag", "line 2: the score must be a finite number below .*, found 'nan'"),
        ("q Q0 d0 2 0.5 tag", "line 2: document 'd0' repeats for query 'q'"),
    ],
)
def test_a_malformed_run_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "run.trec"
    path.write_text(f"q Q0 d0 1 1.0 tag\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_run(path)


@pytest.mark.parametrize(
    ("run", "tag", "message"),
    [
        ({"q 1": [("d", 1.0)]}, "t", "query id 'q 1' cannot stand"),
        ({"q": [("d\t1", 1.0)]}, "t", r"document id 'd\\t1' cannot stand"),
        ({"q": [("d", 1.0)]}, "", "run tag '' cannot stand"),
    ],
)
def test_ids_with_white_space_cannot_stand_in_a_run(
    tmp_path: Path, run: dict[str, list[tuple[str, float]]], tag: str, message: str
) -> None:
    (tmp_path / "run.trec").write_text("as before")
    with pytest.raises(DataError, match=message):
        write_run(run, tmp_path / "run.trec", tag)
    assert [path.name for path in tmp_path.iterdir()] == ["run.trec"]
    assert (tmp_path / "run.trec").read_text() == "as before"


def test_a_missing_run_or_a_folder_in_its_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*run\.trec: No such file"):
        read_run(tmp_path / "run.trec")
    with pytest.raises(DataError, match=r"cannot write .*: it is a folder"):
        write_run({}, tmp_path)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("as before")

    def fill() -> None:
        with replacing_text(path) as stream:
            stream.write("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match=r"run\.trec: No space left on device; free some space"):
        fill()
    assert path.read_text() == "as before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_another_kind_while_writing_is_left_alone(tmp_path: Path) -> None:
    def fail() -> None:
        with replacing_text(tmp_path / "run.trec"):
            raise ConnectionError("not about this file")

    with pytest.raises(ConnectionError, match="not about this file"):
        fail()
    assert list(tmp_path.iterdir()) == []
