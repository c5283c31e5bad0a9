"""docs/server.md and deploy/ tell the truth: what they say to type works against a server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import running, tiny_index

from dupmae.cli import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(*tiny_index(tmp_path_factory.mktemp("docs")), "--writable") as (url, _):
        yield url


def blocks(language: str, word: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return [block for block in found if word in block]


@pytest.mark.slow
def test_the_curl_commands_work_in_their_order(url: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    script = "\n".join(blocks("sh", "curl"))
    assert script.count("curl") == script.count("curl -s ") >= 12
    # As they are written, but that a status that is an error ends the script.
    strict = "set -e\ncurl() { command curl --fail-with-body --noproxy '*' \"$@\"; echo; }\n"
    done = subprocess.run(
        ["bash", "-c", strict + script],
        env=os.environ | {"URL": url}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('"proven":true') == 4
    assert '"deleted":1' in done.stdout


def test_the_python_works(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python", "DupMAEClient")
    exec(compile(code, "docs/server.md", "exec"), {"URL": url, "KEY": None})
    assert " True\n" in capsys.readouterr().out


def test_every_option_is_described() -> None:
    for parameter in main.commands["serve"].params:
        assert f"`{parameter.opts[0]}" in PAGE, parameter.opts[0]


def test_the_files_to_deploy_it_use_options_that_there_are() -> None:
    known = {option for each in main.commands["serve"].params for option in each.opts}
    unit = (ROOT / "deploy" / "dupmae.service").read_text(encoding="utf-8")
    container = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")
    (start,) = re.findall(r"^ExecStart=.* serve (.*)$", unit, flags=re.MULTILINE)
    (entry,) = re.findall(r"^ENTRYPOINT .*\"serve\", (.*)\]$", container, flags=re.MULTILINE)
    assert set(re.findall(r"--[a-z-]+", start + entry)) <= known
    assert "DynamicUser=yes" in unit
    assert re.search(r"^USER \d+$", container, flags=re.MULTILINE)
    for copied in re.findall(r"^COPY (?!--)(.*) /source", container, flags=re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists(), name
