"""What several test files need: shared data, no network, an index, a page in a browser."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"

# How long one example takes says more about a busy machine than about the code.
settings.register_profile("dupmae", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=25)
settings.load_profile("dupmae")

SHARED = Path(os.environ.get("DUPMAE_SHARED", Path(__file__).parents[1].parent / "shared"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while test files are imported, and never among what imports brought."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder with test collections, training text and golden numbers, or skip."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared data at {SHARED}; set DUPMAE_SHARED to the folder that holds beir/")
    return SHARED


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny model."""
    from tiny_model import tiny_model, tiny_tokenizer

    from dupmae.checkpoint import save_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model(expansion=0.0), tiny_tokenizer(), folder, name="tiny")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, which is the present one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return a file of three documents."""
    from command_line import CORPUS

    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in CORPUS))
    return path


@pytest.fixture
def indexed(here: Path, corpus: Path, model: Path) -> Path:
    """Return the index of the three documents, which commands find."""
    from command_line import run

    assert run("index", str(corpus), "--model", str(model)).exit_code == 0
    return here / "dupmae.index"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve an index under two names, and give the address of its page."""
    from served_page import index_documents, serving

    index = index_documents(tmp_path_factory.mktemp("served"))
    with serving(f"animals={index}", f"again={index}") as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Run a Chromium."""
    from playwright.sync_api import sync_playwright
    from served_page import ARGUMENTS, chromium

    with sync_playwright() as engine:
        launched = engine.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        yield launched
        launched.close()


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Any]:
    """Open the page in a tab."""
    from served_page import Tab

    opened = Tab(browser, address, viewport={"width": 1280, "height": 860})
    yield opened
    opened.close()


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Flush nothing: what survives a fault is seen by `test_faults.py`, in other processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield
