"""What the processor can do: how many threads, and which kernels multiply matrices."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

_KERNELS = (
    "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16",
    "amx_int8", "asimd", "asimddp", "bf16", "i8mm", "sve",
)  # fmt: skip
"""Of what Linux says of a processor, what ONNX Runtime and torch choose kernels by."""
_CPUINFO = Path("/proc/cpuinfo")


@cache
def cpu_features() -> tuple[str, ...]:
    """Return the instruction sets that matter; none where the system does not say."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    for line in lines:
        name, _, values = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            known = set(values.split())
            return tuple(kernel for kernel in _KERNELS if kernel in known)
    return ()


def describe_cpu() -> str:
    """Return architecture and instruction sets in one line."""
    return " ".join([platform.machine(), *cpu_features()])


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
