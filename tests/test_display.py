from __future__ import annotations

import sys

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dupmae.commands.display import Display, cells, printable

COLOURS = Display(30, has_colours=True)


def test_a_paragraph_is_wrapped_to_the_width_with_its_indent() -> None:
    text = "Blocks until\n the  thread whose join() is called has terminated."
    assert Display(24).paragraph(text, indent="  ") == [
        "  Blocks until the",
        "  thread whose join() is",
        "  called has terminated.",
    ]
    assert Display().paragraph(text, indent="  ") == [f"  {' '.join(text.split())}"]
    assert Display(24).paragraph("  ") == []


@pytest.mark.slow
@given(st.text(max_size=60), st.integers(1, 12))
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(text: str, width: int) -> None:
    lines = Display(width).paragraph(text)
    assert "".join("".join(lines).split()) == "".join(printable(text).split())
    assert all(cells(line) <= max(width, 2) for line in lines)  # one wide character may take 2


def test_wide_characters_take_two_columns_and_marks_none() -> None:
    assert [cells(text) for text in ("abc", "日本", "e\u0301", "")] == [3, 4, 1, 0]
    assert Display(6).paragraph("日本語文字") == ["日本語", "文字"]


def test_what_a_terminal_would_carry_out_is_replaced() -> None:
    assert printable("a\tb\x1b[31m\x9b1m\x07\u202eevil\ud800") == "a b�[31m�1m��evil�"
    assert len(printable("\r\n\x00x")) == 4
    assert Display(None).paragraph("\x1b]0;title\x07") == ["�]0;title�"]


def test_highlights_are_coloured_also_across_lines() -> None:
    lines = COLOURS.paragraph("until the thread has terminated for good", [(10, 30)], dim=True)
    assert [click.unstyle(line) for line in lines] == [
        "until the thread has",
        "terminated for good",
    ]
    bright = [click.style(part, fg="yellow", bold=True) for part in ("thread has", "terminate")]
    assert lines[0] == click.style("until the ", dim=True) + bright[0]
    assert lines[1] == bright[1] + click.style("d for good", dim=True)
    assert Display(30).paragraph("until the end", [(0, 5)]) == ["until the end"]


@pytest.mark.parametrize(
    ("is_terminal", "env", "width", "has_colours"),
    [
        (False, {}, None, False),
        (True, {}, 72, True),
        (True, {"NO_COLOR": "1"}, 72, False),
        (True, {"NO_COLOR": ""}, 72, True),
        (True, {"TERM": "dumb"}, 72, False),
        (True, {"COLUMNS": "400"}, 100, True),
        (True, {"COLUMNS": "3"}, 20, True),
    ],
)
def test_stdout_is_bare_unless_it_is_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
    env: dict[str, str],
    width: int | None,
    has_colours: bool,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for key, value in ({"TERM": "xterm", "COLUMNS": "72"} | env).items():
        monkeypatch.setenv(key, value)
    assert Display.of_stdout() == Display(width, has_colours)
