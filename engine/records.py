"""What is known of an index, a hit and a score, as values of JSON: one form for all who send it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dupmae.engine.explain import Explanation
from dupmae.engine.facets import FacetValue
from dupmae.engine.fast import has_graph
from dupmae.engine.found import Found
from dupmae.engine.manifest import Manifest
from dupmae.types import Passage


def manifest_fields(manifest: Manifest) -> dict[str, Any]:
    """Return what an index holds, by which encoder, with its segments."""
    segments = [
        {
            "name": segment.name,
            "documents": segment.documents,
            "deleted": segment.deleted,
            "truncated": segment.truncated,
            "passages": segment.passages,
            "hnsw": has_graph(segment),
            "bytes": sum(file.size for file in segment.files),
        }
        for segment in manifest.segments
    ]
    borrows = {} if manifest.borrow is None else {"borrow": asdict(manifest.borrow)}
    return {
        "documents": manifest.documents,
        "deleted": sum(segment.deleted for segment in manifest.segments),
        "truncated": manifest.truncated,
        "passages": manifest.passages,
        "chunk": manifest.chunk and asdict(manifest.chunk),
        **borrows,
        "bytes": sum(file.size for file in manifest.files),
        "generation": manifest.generation,
        "created": manifest.created,
        "encoder": manifest.encoder_name,
        "seal": manifest.encoder_seal,
        "dense_dim": manifest.dense_dim,
        "vocabulary_size": manifest.vocabulary_size,
        "format_version": manifest.format_version,
        "segments": segments,
    }


def explanation_fields(explanation: Explanation, documents: int) -> dict[str, Any]:
    """Return a score taken apart, ranked among so many documents; a passage if it is of one."""
    return {
        "query": explanation.query,
        "id": explanation.doc_id,
        "rank": explanation.rank,
        "documents": documents,
        "k": explanation.k,
        "kth_score": explanation.kth_score,
        "gap": explanation.gap,
        "score": explanation.score,
        "dense_weight": explanation.weights.dense,
        "sparse_weight": explanation.weights.sparse,
        "feedback": explanation.weights.feedback,
        "dense": explanation.dense,
        "sparse": explanation.sparse,
        **_passage_fields(explanation.passage, explanation.passage_text),
        "terms": [
            {
                "term": term.text,
                "query_weight": term.query_weight,
                "document_weight": term.document_weight,
                "product": term.product,
                "borrowed": term.borrowed,
            }
            for term in explanation.terms
        ],
        "missing": [
            {"term": term.text, "query_weight": term.query_weight} for term in explanation.missing
        ],
    }


def hit_fields(found: Found) -> dict[str, Any]:
    """Return a hit with its document; its passage if that is split, its snippet if there is one."""
    hit, document = found.hit, found.document
    return {
        "rank": found.rank,
        "id": hit.doc_id,
        "score": hit.score,
        "dense": hit.dense,
        "sparse": hit.sparse,
        "title": document.title,
        "text": document.text,
        "metadata": dict(document.metadata),
        **_passage_fields(hit.passage, found.passage_text),
        **({} if found.snippet is None else {"snippet": asdict(found.snippet)}),
    }


def facet_fields(
    counts: Mapping[str, Sequence[FacetValue]], most: int | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return the values of facets, all or the most frequent ones."""
    return {key: [asdict(value) for value in values[:most]] for key, values in counts.items()}


def bound_field(bound: float) -> float | None:
    """Return a bound as JSON can say it: −∞, when all documents were scored, is null."""
    return bound if math.isfinite(bound) else None


def _passage_fields(passage: Passage | None, text: str) -> dict[str, Any]:
    """Return what is added about a split document: the passage that scores, with its text."""
    return {} if passage is None else {"passage": {**asdict(passage), "text": text}}
