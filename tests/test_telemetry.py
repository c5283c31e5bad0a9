"""ONNX Runtime counts its users unless told not to: it is told before it begins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ENCODE = "from dupmae.encoder import Encoder; Encoder.load(threads=1).encode_queries(['sea'])"


def test_encoding_leaves_no_id_of_the_user_behind(tmp_path: Path) -> None:
    environment = {
        name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ
    }
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", ENCODE], env=environment, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
