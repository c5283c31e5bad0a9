"""Finding damage: sizes and checksums of all files, and, in depth, whether they tell one story."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dupmae.engine.corpus import CorpusHash
from dupmae.engine.manifest import Manifest, parse_manifest
from dupmae.engine.opened import Segment, open_segments
from dupmae.engine.stored_files import check_content
from dupmae.errors import IndexMissingError
from dupmae.indexes.kernels import reach
from dupmae.types import Float64, Int64, Ranking

SAMPLES = 8
"""Documents of each segment whose own vectors are asked for."""

_BLOCK = 1024
"""Documents read at a time."""
_DEPTH = 100
"""How far a list is read."""
_ROUNDED = 1 / 8
"""Of the longest vector's length: above what rounding to 8 bits of each number can take away."""


def verify_index(folder: Path | str, *, deep: bool = False) -> list[str]:
    """Read every file of an index and return what is wrong, a line each; nothing if all is well.

    Writers may be at work meanwhile.

    Args:
        folder: of the index.
        deep: whether to look at what the files say too: every dense vector is finite and every
            sparse one in order, terms are counted rightly, texts are those that were indexed,
            truncated documents are counted rightly, no two live documents have one id, and the
            lists of both candidate stores and the bounds of outlines keep their promises for some
            documents of each segment, taken as queries, whose vectors a graph holds too.

    Raises:
        IndexMissingError: if there is no index, or its manifest is damaged or of another format.
    """
    folder = Path(folder)
    manifest = parse_manifest(folder)
    while True:
        problems = _damages(folder, manifest)
        if deep and not problems:
            problems = _contradictions(folder, manifest)
        latest = parse_manifest(folder)
        if not problems or latest == manifest:
            return problems
        manifest = latest  # a writer has removed what was being read


def _damages(folder: Path, manifest: Manifest) -> list[str]:
    problems = []
    for file in manifest.files:
        try:
            check_content(folder, file)
        except IndexMissingError as error:
            problems.append(str(error))
    return problems


def _contradictions(folder: Path, manifest: Manifest) -> list[str]:
    try:
        segments = open_segments(folder, manifest, {})
    except IndexMissingError as error:
        return [str(error)]
    try:
        checks = (_vectors, _texts, _reading, _dense_lists, _sparse_lists, _outline, _graph)
        found = [
            f"index {folder}, segment {name}: {problem}"
            for name, segment in segments.items()
            for check in checks
            for problem in check(segment)
        ]
        repeated = _repeated_ids(list(segments.values()))
        return [*found, *(f"index {folder}: {problem}" for problem in repeated)]
    finally:
        for segment in segments.values():
            segment.documents.close()


def _vectors(segment: Segment) -> Iterator[str]:
    forward = segment.forward
    counted = np.zeros(len(forward.frequency), dtype=np.int64)
    for start in range(0, len(forward), _BLOCK):
        end = min(start + _BLOCK, len(forward))
        sparse = forward.sparse.rows(start, end)
        if not np.isfinite(forward.dense[start:end]).all():
            yield f"a dense vector of rows {start} to {end - 1} is not finite"
        try:
            counted += np.bincount(sparse.check().terms, minlength=len(counted))
        except ValueError as error:  # a term above the vocabulary makes more counts than there are
            yield f"a sparse vector of rows {start} to {end - 1} is none: {error}"
            return
        forward.release_pages()
    if not np.array_equal(counted, forward.frequency):
        yield "frequency.npy does not count the terms of the vectors"


def _texts(segment: Segment) -> Iterator[str]:
    digest = CorpusHash()
    for start in range(0, len(segment), _BLOCK):
        digest.add_all(segment.documents.get(range(start, min(start + _BLOCK, len(segment)))))
    if digest.hexdigest() != segment.record.corpus_hash:
        yield "the texts are not those that were indexed"


def _reading(segment: Segment) -> Iterator[str]:
    record, reading = segment.record, segment.reading
    truncated = None if reading is None else reading.count_truncated(segment.live)
    if truncated != record.truncated:
        yield f"the manifest counts {record.truncated} truncated documents, found {truncated}"
    passages = None if reading is None else reading.count_passages(segment.live)
    if passages != record.passages:
        yield f"the manifest counts {record.passages} passages, found {passages}"
    yield from _passages(segment)


def _passages(segment: Segment) -> Iterator[str]:
    """Look whether passages begin and end with the text, and follow each other."""
    for start in range(0, len(segment), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(segment)))
        spans = None if segment.reading is None else segment.reading.spans_of(rows)
        documents = [] if spans is None else segment.documents.get(rows)
        for document, found in zip(documents, spans or [], strict=True):
            starts, ends = found.T
            follow = np.all(np.diff(starts) >= 0) and np.all(np.diff(ends) >= 0)
            if not (follow and starts[0] == 0 and ends[-1] == len(document.text)):
                yield f"the passages of document {document.doc_id!r} are not those of its text"


def _repeated_ids(segments: Sequence[Segment]) -> Iterator[str]:
    for place, segment in enumerate(segments):
        for block in segment.texts(_BLOCK):
            ids = [document.doc_id for document in block]
            for later in segments[place + 1 :]:
                for doc_id in later.find(ids):
                    yield f"two live documents have the id {doc_id!r}"


def _dense_lists(segment: Segment) -> Iterator[str]:
    forward, live, mask = segment.forward, segment.live_rows(), segment.is_live_row()
    for ordinal in _samples(segment):
        query = forward.dense[[ordinal]]
        (ranking,) = segment.dense.search(query, _DEPTH, mask)
        truth, _ = forward.score(query[0], *forward.sparse.row(ordinal), live)
        most = truth - segment.dense.error_bound(query[0])
        if len(ranking) != min(_DEPTH, len(live)) or _exceeds(ranking, live, most):
            yield f"the dense list for the vector of row {ordinal} leaves out a better document"


def _sparse_lists(segment: Segment) -> Iterator[str]:
    forward, live, mask = segment.forward, segment.live_rows(), segment.is_live_row()
    for ordinal in _samples(segment):
        query = forward.sparse.rows(ordinal, ordinal + 1)
        (ranking,) = segment.sparse.search(query, _DEPTH, mask)
        _, truth = forward.score(forward.dense[ordinal], *query.row(0), live)
        sharing = truth > 0
        is_short = len(ranking) != min(_DEPTH, np.count_nonzero(sharing))
        if is_short or _exceeds(ranking, live[sharing], truth[sharing]):
            yield f"the sparse list for the vector of row {ordinal} leaves out a better document"


def _outline(segment: Segment) -> Iterator[str]:
    if segment.outline is None:
        return
    forward, everything = segment.forward, np.arange(len(segment.forward))
    sums = np.zeros(len(forward), dtype=np.int32)
    for ordinal in _samples(segment):
        query = forward.dense[ordinal]
        if not np.isfinite(query).all():  # which is said already
            continue
        truth, _ = forward.score(query, *forward.sparse.row(ordinal), everything)
        coded = segment.outline.query(query, 1.0, 0.0, 0.0)
        for code in (coded, replace(coded, vector=None)):
            scan = (code, segment.outline.codes, sums, None, -np.inf, 0, len(forward))
            if np.any(reach(*scan)[1] < truth):
                yield f"the outline for the vector of row {ordinal} leaves out a better document"


def _graph(segment: Segment) -> Iterator[str]:
    """Look whether a graph is of these vectors, which it keeps rounded; it promises nothing."""
    if segment.graph is None:
        return
    rows, dense = np.array(_samples(segment)), segment.forward.dense
    largest = np.sqrt(np.einsum("ij,ij->i", dense, dense).max())
    away = np.linalg.norm(segment.graph.vectors(rows) - dense[rows], axis=1)
    for row in rows[away > _ROUNDED * largest].tolist():
        yield f"the graph holds another vector for row {row}"


def _samples(segment: Segment) -> list[int]:
    """Return rows from all over the segment."""
    size = len(segment.forward)
    places = np.linspace(0, size - 1, min(SAMPLES, size))
    return sorted({int(place) for place in places})


def _exceeds(ranking: Ranking, ordinals: Int64, scores: Float64) -> bool:
    """Say whether a score is above what is listed for it, or above the last where it is not."""
    listed = dict(zip(ranking.ordinals.tolist(), ranking.scores.tolist(), strict=True))
    if not listed:
        return False
    last = float(ranking.scores[-1])
    pairs = zip(ordinals.tolist(), scores.tolist(), strict=True)
    return any(score > listed.get(ordinal, last) for ordinal, score in pairs)
