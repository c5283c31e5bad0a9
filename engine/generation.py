"""One generation of an index, opened for an encoder that is known to fit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dupmae.engine.canaries import check_canaries
from dupmae.engine.manifest import Manifest, read_state
from dupmae.engine.opened import Segment, open_segments
from dupmae.engine.view import View
from dupmae.errors import SealError
from dupmae.types import TextEncoder


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """A state of an index with its segments, by name, and all its live documents in one view."""

    manifest: Manifest
    segments: Mapping[str, Segment]
    view: View

    def close(self) -> None:
        """Close the files that are not merely mapped."""
        for segment in self.segments.values():
            segment.documents.close()


def open_generation(
    folder: Path, encoder: TextEncoder, before: Generation | None = None
) -> Generation:
    """Open the newest generation of an index, of which only what is new since `before`.

    Args:
        folder: of the index.
        encoder: of the queries; if there is a generation before, it fits that one.
        before: one that is open, to share its segments with.

    Raises:
        IndexMissingError: if there is no index, or it is damaged or of another format.
        SealError: if another encoder built it, or this one makes other vectors by now.
    """
    known = {} if before is None else before.segments

    def opens(manifest: Manifest) -> Generation:
        _check_seal(folder, manifest, encoder)
        if before is None or manifest.canaries != before.manifest.canaries:
            check_canaries(folder, manifest.canaries, encoder)
        segments = open_segments(folder, manifest, known)
        view = View.of_live(list(segments.values()), manifest.dense_dim, manifest.vocabulary_size)
        return Generation(manifest, segments, view)

    return read_state(folder, opens)


def _check_seal(folder: Path, manifest: Manifest, encoder: TextEncoder) -> None:
    if manifest.encoder_seal != encoder.seal:
        raise SealError(
            f"index {folder} was built by encoder {manifest.encoder_name} "
            f"(seal {manifest.encoder_seal[:12]}), not by {encoder.name} "
            f"(seal {encoder.seal[:12]}); load that encoder, or rebuild the index with --replace"
        )
