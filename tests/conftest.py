"""What several test files need: shared data, no network, and a model, a corpus and an index."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"

# How long one example takes says more about a busy machine than about the code.
settings.register_profile("dupmae", deadline=None)
settings.load_profile("dupmae")

SHARED = Path(os.environ.get("DUPMAE_SHARED", Path(__file__).parents[1].parent / "shared"))


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
