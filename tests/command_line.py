"""Commands run in this process, on a corpus of three documents."""

from __future__ import annotations

from click.testing import CliRunner, Result

from dupmae.cli import main

CORPUS = [
    {"_id": "sea", "title": "da ba", "text": "be bi bo ba"},
    {"_id": "sky", "title": "", "text": "ka ke ki ko", "year": 2020},
    {"_id": "sun", "text": "ra re ri ro ba be"},
]


def run(*arguments: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(main, arguments)


def one_line(result: Result, code: int, *words: str) -> None:
    """Assert an exit code and exactly one line on stderr that holds all the words."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr
