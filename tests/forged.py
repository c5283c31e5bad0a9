"""Damage that no checksum shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dupmae.engine.manifest import parse_manifest, write_manifest
from dupmae.engine.stored_files import describe_file


def approve(folder: Path) -> None:
    """Give the manifest the sizes and checksums that the segments' files have now."""
    manifest = parse_manifest(folder)
    segments = tuple(
        replace(record, files=tuple(describe_file(folder, folder / f.path) for f in record.files))
        for record in manifest.segments
    )
    write_manifest(folder, replace(manifest, segments=segments))
