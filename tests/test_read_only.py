"""An index that cannot be written is searched and verified: without rights, and on such a mount."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeEncoder

from dupmae.engine import SearchEngine, build_index, delete_documents
from dupmae.types import Document

TESTS = Path(__file__).parent
LOOK = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import numpy.random  # not found any more without rights, if Python lies in a home folder
from fakes import FakeEncoder
from dupmae.engine import SearchEngine, delete_documents, verify_index
from dupmae.errors import DupMAEError
if sys.argv[2] == "without rights" and os.geteuid() == 0:  # root may do anything
    os.setgid(65534)
    os.setuid(65534)
try:
    open("my.index/new", "w")
    sys.exit("the folder can be written")
except OSError:
    pass
with SearchEngine.open("my.index", FakeEncoder()) as engine:
    hits = [[hit.doc_id, hit.score] for hit in engine.search("whale ship", where="n >= 0").hits]
    facets = engine.facets("n")["n"]
try:
    delete_documents("my.index", ["d1"])
    error = ""
except DupMAEError as raised:
    error = str(raised)
print(json.dumps([hits, len(facets), verify_index("my.index", deep=True), error]))
"""
MOUNT = """
mount --bind my.index my.index && mount -o remount,bind,ro my.index && exec "$@"
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """Make a folder with an index in it, of two segments and a deletion.

    It lies where whoever root becomes may go; pytest's own folders let nobody else in.
    """
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        fill(Path(name) / "my.index")
        yield Path(name)


def fill(folder: Path) -> None:
    texts = ("whale", "ship whale", "sea", "ship")
    for part in (slice(0, 3), slice(3, 4)):
        documents = [Document(f"d{n}", t, metadata={"n": n}) for n, t in enumerate(texts)][part]
        build_index(documents, FakeEncoder(), folder)
    delete_documents(folder, ["d2"])


def look(place: Path, how: str, *before: str) -> None:
    """Assert that a process that cannot write answers as this one, and says so when it would."""
    with SearchEngine.open(place / "my.index", FakeEncoder()) as engine:
        hits = [[hit.doc_id, hit.score] for hit in engine.search("whale ship").hits]
    command = [*before, sys.executable, "-c", LOOK, str(TESTS), how]
    ran = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found, facets, problems, error = json.loads(ran.stdout)
    assert (found, facets, problems) == (hits, 3, [])
    assert "could not be written" in error
    assert "nothing is deleted" in error
    assert "\n" not in error


@pytest.mark.skipif(os.name != "posix", reason="rights are POSIX's")
def test_a_folder_without_the_right_to_write_is_searched(place: Path) -> None:
    parts = [place / "my.index", *(place / "my.index").rglob("*")]
    for path in parts:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        look(place, "without rights")
    finally:
        for path in parts:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_folder_that_is_mounted_read_only_is_searched(place: Path) -> None:
    own = ["unshare", "--mount"] if os.name == "posix" and os.geteuid() == 0 else []
    own = own or ["unshare", "--map-root-user", "--mount"]
    enter = [*own, "sh", "-c", MOUNT, "sh"]
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare to mount with")
    if subprocess.run([*enter, "true"], cwd=place, capture_output=True, check=False).returncode:
        pytest.skip("this system does not let its tests mount a folder")
    look(place, "mounted", *enter)
