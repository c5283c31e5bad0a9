"""Lucene runs in Java, which not every machine has."""

from __future__ import annotations

import pytest

from dupmae.errors import DupMAEError
from dupmae.indexes.jvm import java_class


def skip_without_lucene() -> None:
    """Skip the test that calls this where Lucene cannot run, and say why."""
    try:
        java_class("org.apache.lucene.util.Version")
    except DupMAEError as error:
        pytest.skip(str(error))
