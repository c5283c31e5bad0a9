"""What several test files need: where shared data lies, and that nothing reaches a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    """Flush nothing: what survives a fault is seen by `test_faults.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield
