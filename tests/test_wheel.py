"""What is installed: one top-level name, and the model with it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the files of a wheel built from a copy of what git would ship."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).symlink_to(ROOT / name)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", str(folder), str(source)),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_only_top_level_name_is_dupmae(names: list[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dupmae"}


def test_all_folders_and_the_type_marker_are_inside(names: list[str]) -> None:
    for name in (
        "cli.py",
        "py.typed",
        "engine/fusion.py",
        "indexes/exact.py",
        "eval/beir.py",
        "integrations/mcp_server.py",
    ):
        assert f"dupmae/{name}" in names


def test_the_page_is_inside(names: list[str]) -> None:
    for path in (ROOT / "dupmae" / "server" / "page").iterdir():
        assert f"dupmae/server/page/{path.name}" in names


def test_the_shipped_encoder_is_inside(names: list[str]) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json", "dupmae.json"):
        assert f"dupmae/models/dupmae-mini/{name}" in names
