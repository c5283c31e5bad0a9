"""Sparse vectors to pyserini: a JsonVectorCollection of documents, and topics.

pyserini and Anserini index a folder of JSONL files, a document a line: `id`, `contents` and
`vector`, which maps tokens to weights. Their impact index keeps whole numbers, so weights are
multiplied by a scale and rounded, to 1 at least, so that no term is lost. A query is a line of its
id, a tab, and its tokens, each as many times as it weighs; each query has a scale of its own, which
changes no ranking. Tokens are the entries of the encoder's vocabulary. `pyserini_import.py` reads
what is written here.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dupmae.engine.corpus import read_corpus
from dupmae.engine.vectors import VectorFiles
from dupmae.errors import DataError, DupMAEError, UsageError
from dupmae.types import CorpusStatistics, Document, Float32, Int32, Int64, TextEncoder

COLLECTION_NAME = "collection"
TOPICS_NAME = "topics.tsv"
DEFAULT_SCALE = 100.0
"""As usual for SPLADE and uniCOIL: a weight of 1 becomes an impact of 100."""
QUERY_IMPACT = 255
"""Of a query's heaviest term. A scale for all queries may be too coarse: at 100 the terms of
dupmae-mini's queries have impacts of 1 to 4."""
MAX_IMPACT = 65_535
"""Of a term; Anserini writes it out as many times, in memory."""

_DOCUMENTS = 512
"""Documents in memory at a time."""


def to_pyserini(
    vectors: Path,
    folder: Path,
    encoder: TextEncoder,
    *,
    queries: Path | None = None,
    scale: float = DEFAULT_SCALE,
) -> int:
    """Write the sparse vectors of an exported index as a JsonVectorCollection.

    Args:
        vectors: what `export_index` wrote, with the documents beside it.
        folder: gets `collection/` and, with queries, `topics.tsv`; appears when complete.
        encoder: that made the vectors; encodes the queries, for this corpus.
        queries: JSONL with `_id` and `text`.
        scale: impacts in documents are weights times this, > 0.

    Returns:
        The number of documents.

    Raises:
        UsageError: if the folder is there already, or the scale out of its range.
        SealError: if another encoder made the vectors.
        DataError: if a file is missing or damaged, or a token or query id cannot be written.
        DupMAEError: if the disk is full or cannot be written.
    """
    check_scale(scale)
    if folder.exists():
        raise UsageError(f"{folder} is there already; remove it, or name another folder")
    tokens = vocabulary(encoder)
    with VectorFiles.open([vectors], encoder) as source, _appearing(folder) as partial:
        (partial / COLLECTION_NAME).mkdir()
        with (partial / COLLECTION_NAME / "documents.jsonl").open("wb") as file:
            frequency = _write_documents(file, vectors, source, tokens, scale)
        if queries is not None:
            statistics = CorpusStatistics(len(source), frequency)
            with (partial / TOPICS_NAME).open("wb") as file:
                _write_topics(file, queries, encoder, statistics, tokens)
        return len(source)


def vocabulary(encoder: TextEncoder) -> list[str]:
    """Return the token of each term.

    Raises:
        DataError: if two are the same, or one holds white space, at which analyzers split.
    """
    tokens = encoder.term_texts(range(encoder.vocabulary_size))
    seen: dict[str, int] = {}
    for term, token in enumerate(tokens):
        if token.split() != [token]:
            raise DataError(
                f"term {term} of encoder {encoder.name} is {token!r}; expected a token without "
                "white space, at which Anserini would split it"
            )
        if seen.setdefault(token, term) != term:
            raise DataError(
                f"terms {seen[token]} and {term} of encoder {encoder.name} are both {token!r}; "
                "expected distinct tokens, which Anserini tells terms by"
            )
    return tokens


def check_scale(scale: float) -> None:
    """Raise UsageError if weights cannot be multiplied and divided by it."""
    if not (scale > 0 and math.isfinite(scale)):
        raise UsageError(f"the scale must be above 0, found {scale}")


def _write_documents(
    file: BinaryIO, vectors: Path, source: VectorFiles, tokens: Sequence[str], scale: float
) -> Int64:
    """Write all documents; return in how many each term is, (V,)."""
    frequency = np.zeros(len(tokens), dtype=np.int64)
    for block in _blocks(read_corpus(vectors.with_suffix(".jsonl"))):
        sparse = source.vectors(block).sparse
        frequency += np.bincount(sparse.terms, minlength=len(tokens))
        for document, row in zip(block, sparse, strict=True):
            impacts = _impacts(*row, tokens, scale)
            record = {"id": document.doc_id, "contents": document.content, "vector": impacts}
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
    return frequency


def _write_topics(
    file: BinaryIO,
    queries: Path,
    encoder: TextEncoder,
    statistics: CorpusStatistics,
    tokens: Sequence[str],
) -> None:
    for block in _blocks(read_corpus(queries)):
        encoded = encoder.encode_queries([query.text for query in block], statistics)
        for query, (terms, weights) in zip(block, encoded.sparse, strict=True):
            if query.doc_id.split() != [query.doc_id]:
                raise DataError(
                    f"{queries}: the query id {query.doc_id!r} holds white space, which ends an id "
                    "in topics and runs; rename the query"
                )
            scale = QUERY_IMPACT / float(weights.max(initial=0.0) or 1.0)
            impacts = _impacts(terms, weights, tokens, scale)
            repeated = " ".join(" ".join([token] * impact) for token, impact in impacts.items())
            file.write(f"{query.doc_id}\t{repeated}\n".encode())


def _impacts(terms: Int32, weights: Float32, tokens: Sequence[str], scale: float) -> dict[str, int]:
    impacts = np.rint(weights.astype(np.float64) * scale).clip(1)
    if len(impacts) and impacts.max() > MAX_IMPACT:
        raise DataError(
            f"a weight of {weights.max():g} is an impact of {impacts.max():g}, expected at most "
            f"{MAX_IMPACT}; use a smaller scale than {scale:g}"
        )
    return {
        tokens[term]: impact
        for term, impact in zip(terms.tolist(), impacts.astype(np.int64).tolist(), strict=True)
    }


def _blocks(documents: Iterator[Document]) -> Iterator[list[Document]]:
    while block := list(islice(documents, _DOCUMENTS)):
        yield block


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Give a folder that gets its name when the block ends well, and goes when it fails."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(folder)
    except OSError as error:
        raise DupMAEError(f"{folder} could not be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
