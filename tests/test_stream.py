"""`search -`: queries from stdin, answers as JSON lines or as a TREC run."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import FakeEncoder
from terminal import WITH_FAKE_ENCODER

from dupmae.cli import main
from dupmae.commands.stream import LONGEST_LINE, Query, read_queries
from dupmae.engine import SearchEngine, build_index
from dupmae.errors import DataError
from dupmae.eval.runs import read_run
from dupmae.heads import HeadSettings
from dupmae.types import Document

DOCUMENTS = [
    Document(f"d{number}", f"whale sea {word} {number}", metadata={"n": number})
    for number, word in enumerate(["ship", "storm", "captain", "harpoon", "calm"])
]
JSON_QUERIES = '{"_id": "q 1", "text": "whale ship"}\n\n{"_id": "q2", "text": "storm", "x": 1}\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FakeEncoder, "heads", HeadSettings(), raising=False)
    monkeypatch.setattr("dupmae.commands.options.load_encoder", lambda *_: FakeEncoder())
    build_index(DOCUMENTS, FakeEncoder(), "dupmae.index")
    return tmp_path


def search(queries: str | bytes, *options: str) -> Result:
    return CliRunner().invoke(main, ["search", "-", *options], input=queries)


def read(data: bytes, form: str | None = None) -> list[Query]:
    return list(read_queries(io.BytesIO(data), form))


def test_plain_lines_are_queries_with_the_numbers_of_their_lines() -> None:
    data = "\ufeff\r\nwhale  ship\r\n\n  storm\nno end".encode()
    assert read(data) == [Query("2", "whale  ship"), Query("4", "storm"), Query("5", "no end")]


def test_a_first_line_that_begins_with_a_brace_makes_all_lines_json() -> None:
    assert read(JSON_QUERIES.encode()) == [Query("q 1", "whale ship"), Query("q2", "storm")]
    assert read(b'{"_id"\n', "text") == [Query("1", '{"_id"')]
    with pytest.raises(DataError, match="standard input, line 2: not JSON"):
        read(JSON_QUERIES.splitlines()[0].encode() + b"\nwhale")
    with pytest.raises(DataError, match="line 1: not JSON"):
        read(b"whale\n", "jsonl")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no queries"),
        (b"\n \n", "no queries"),
        (b"whale\n\xff\n", r"line 2: not UTF-8 \(byte 1"),
        (b'{"_id": "a"}', "line 1: expected"),
        (b'{"_id": 7, "text": "a"}', "line 1: expected"),
        (b'{"_id": "", "text": "a"}', "line 1: expected"),
        (b'{"_id": "a", "text": " "}', "line 1: expected"),
        (b'{"_id": "a", "text": "\\ud800"}', "surrogate"),
        (b"{" * 100_000, "line 1: not JSON"),
        (b"a" * (LONGEST_LINE + 1), "line 1: longer than 1,048,576 bytes"),
    ],
)
def test_a_line_that_is_no_query_is_named(data: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(data)


@pytest.mark.parametrize("block", ["1", "2", "64"])
def test_answers_are_those_of_the_queries_asked_alone(here: Path, block: str) -> None:
    words = ["ship", "storm", "whale", "calm", "nothing"]
    result = search("\n".join(words), "-k", "2", "--where", "n > 0", "--batch", block)
    assert result.exit_code == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer.pop("_id") for answer in answers] == ["1", "2", "3", "4", "5"]
    alone = [
        CliRunner().invoke(main, ["search", word, "-k", "2", "--where", "n > 0", "--json"]).stdout
        for word in words
    ]
    assert answers == [json.loads(answer) for answer in alone]
    assert result.stderr == ""


def test_a_run_is_read_back_as_the_engine_ranked(here: Path) -> None:
    result = search(JSON_QUERIES.replace("q 1", "q1"), "--trec", "--tag", "mine", "-k", "3")
    (here / "run.trec").write_text(result.stdout)
    assert result.stdout.splitlines()[0].split()[3:] == [
        "1", result.stdout.split()[4], "mine",
    ]  # fmt: skip
    with SearchEngine.open("dupmae.index", FakeEncoder()) as engine:
        expected = {
            query_id: [hit.doc_id for hit in engine.search(text, 3).hits]
            for query_id, text in (("q1", "whale ship"), ("q2", "storm"))
        }
    run = read_run(here / "run.trec")
    assert {query: [doc for doc, _ in hits] for query, hits in run.items()} == expected


@pytest.mark.parametrize(
    ("options", "third", "said"),
    [
        ((), "{", "line 3: not JSON"),
        (("--trec",), '{"_id": "b", "text": "sea"}', "'b' repeats"),
        (("--trec",), '{"_id": "c d", "text": "sea"}', "'c d' holds white space"),
    ],
)
def test_a_bad_line_ends_with_1_after_the_answers_before_it(
    here: Path, options: tuple[str, ...], third: str, said: str
) -> None:
    good = "".join(json.dumps({"_id": name, "text": "sea"}) + "\n" for name in "ab")
    result = search(f"{good}{third}\n", "-k", "1", *options)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 2
    (line,) = result.stderr.splitlines()
    assert said in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["-", "--trec", "--json"],
        ["-", "--trec", "--offset", "1"],
        ["-", "--tag", "x"],
        ["-", "--trec", "--tag", "x y"],
        ["-", "--facets", "n"],
        ["whale", "--trec"],
        ["whale", "--batch", "3"],
        ["--input", "text"],
        [],
    ],
    ids=" ".join,
)
def test_options_that_do_not_fit_are_a_usage_error(here: Path, arguments: Iterable[str]) -> None:
    result = CliRunner().invoke(main, ["search", *arguments], input="whale\n")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")


def test_no_query_and_no_terminal_says_what_to_give(here: Path) -> None:
    result = CliRunner().invoke(main, ["search"], input="whale\n")
    assert result.stderr.startswith("Error: no query; give one, or - to read queries from")


def test_a_query_that_is_not_utf_8_is_a_usage_error(here: Path) -> None:
    result = CliRunner().invoke(main, ["search", "\udcff"])
    assert (result.exit_code, result.stderr) == (
        2, "Error: the query is not UTF-8; type it on a terminal that is\n",
    )  # fmt: skip


def test_each_query_of_a_batch_of_one_is_answered_before_the_next_is_read(here: Path) -> None:
    command = [sys.executable, "-c", WITH_FAKE_ENCODER, str(Path(__file__).parent)]
    with subprocess.Popen(
        [*command, "search", "-", "--batch", "1", "-k", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        for word in ("storm", "ship"):
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["query"] == word
        process.stdin.close()
        assert process.wait() == 0


def test_progress_is_shown_on_a_terminal_that_answers_do_not_go_to(here: Path) -> None:
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    command = [sys.executable, "-c", WITH_FAKE_ENCODER, str(Path(__file__).parent), "search", "-"]
    done = subprocess.run(
        command, input=b"storm\nship\n", stdout=subprocess.PIPE, stderr=terminal, check=True
    )
    shown = os.read(screen, 65536).decode()
    os.close(terminal)
    os.close(screen)
    assert "2 queries" in shown
    assert len(done.stdout.splitlines()) == 2
