"""Completion scripts, tried in the shells that are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner

from dupmae.cli import main

COMPLETE = {
    "bash": """
        source "$1"
        COMP_WORDS=(dupmae {words}) COMP_CWORD={place}
        _dupmae_completion dupmae
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """,
    # compdef is there only when compinit ran; _describe and compadd only while zsh completes.
    "zsh": """
        compdef() {{ }}
        _describe() {{ print -rl -- "${{(@P)3}}" }}
        compadd() {{ print -rl -- "${{(@P)argv[-1]}}" }}
        source "$1"
        words=(dupmae {words}) CURRENT={place}+1
        _dupmae_completion
    """,
    "fish": """
        source $argv[1]
        complete --do-complete "dupmae {words}"
    """,
}
"""What makes a shell complete the word at `place`, and print what it would offer."""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `dupmae` is this code."""
    program = tmp_path / "bin" / "dupmae"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dupmae "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    return dict(os.environ) | {"PATH": path, "HOME": str(tmp_path)}


TYPED = [
    ("se", {"search"}, {"explain"}),
    ("search --of", {"--offset"}, {"--where"}),
    ("completion ", {"bash", "zsh", "fish"}, {"search"}),
]


@pytest.mark.parametrize(
    ("shell", "words", "offered", "not_offered"),
    [
        *(("bash", *typed) for typed in TYPED),
        ("fish", *TYPED[1]),
        ("zsh", *TYPED[2]),
        *(
            pytest.param(shell, *typed, marks=pytest.mark.slow)
            for shell, typed in product(("fish", "zsh"), TYPED)
            if (shell, typed) not in (("fish", TYPED[1]), ("zsh", TYPED[2]))
        ),
    ],
)
def test_the_shell_offers_commands_options_and_choices(
    tmp_path: Path,
    env: dict[str, str],
    shell: str,
    words: str,
    offered: set[str],
    not_offered: set[str],
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / f"dupmae.{shell}"
    script.write_text(CliRunner().invoke(main, ["completion", shell]).stdout)
    place = len(words.split(" "))
    typed = words if shell == "fish" or not words.endswith(" ") else f"{words}''"
    code = COMPLETE[shell].format(words=typed, place=place)
    arguments = [str(script)] if shell == "fish" else [shell, str(script)]
    no_files = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [shell, *no_files, "-c", code, *arguments],
        env=env, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    found = {line.split("\t")[0].split(":")[0] for line in done.stdout.splitlines()}
    assert offered <= found, done
    assert not not_offered & found


def test_another_shell_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["completion", "tcsh"])
    assert result.exit_code == 2
