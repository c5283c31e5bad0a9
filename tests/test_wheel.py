"""What is installed: one top-level name, and the model with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Return a wheel built from a copy of what git would ship."""
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
    return zipfile.ZipFile(wheel)


@pytest.fixture
def names(wheel: zipfile.ZipFile) -> list[str]:
    return wheel.namelist()


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


@pytest.mark.parametrize("is_installed", [True, False])
def test_a_checkout_runs_what_is_installed_and_says_so_if_nothing_is(
    wheel: zipfile.ZipFile, tmp_path: Path, is_installed: bool
) -> None:
    checkout, installed = tmp_path / "checkout", tmp_path / "installed"
    shutil.copytree(ROOT / "dupmae", checkout / "dupmae", ignore=shutil.ignore_patterns("models"))
    shutil.copy(ROOT / "cli.py", checkout)
    installed.mkdir()
    if is_installed:
        wheel.extractall(installed)
    # Without site no .pth file is read, and so no editable installation seen.
    places = (str(installed), sysconfig.get_path("purelib"))
    done = subprocess.run(
        [sys.executable, "-S", str(checkout / "cli.py"), "info"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    if is_installed:
        assert (done.returncode, line[:27]) == (3, "Error: no index at dupmae.i")
    else:
        assert done.returncode == 1
        assert line.endswith(f"run: pip install -e {checkout}")
