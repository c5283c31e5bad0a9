"""Lucene as both of its uses here need it: classes, writing, searching, reading hits.

Call these while `java_lock` is held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dupmae.indexes.jvm import java_class
from dupmae.types import Float64, Int64

BUFFER_MB = 64.0
"""What Lucene may hold in memory before it writes a part of the index out."""

_READER = "(Lorg/apache/lucene/index/IndexReader;)V"
_TEXT_FIELD = (
    "(Ljava/lang/String;Ljava/lang/CharSequence;Lorg/apache/lucene/index/IndexableFieldType;)V"
)
"""Signatures of constructors, of which pyjnius would else choose the wrong one."""


def lucene_class(name: str) -> Any:
    """Return a class of Lucene by its name there.

    Raises:
        DupMAEError: as `java_class`.
    """
    return java_class(f"org.apache.lucene.{name}")


def text_field(name: str, *, norms: bool) -> Any:
    """Return a field whose text is indexed as terms with frequencies, and not stored.

    `norms`: whether the lengths of texts are kept, which a score may need.
    """
    field_type = lucene_class("document.FieldType")()
    field_type.setIndexOptions(lucene_class("index.IndexOptions").DOCS_AND_FREQS)
    field_type.setOmitNorms(not norms)
    return lucene_class("document.Field")(name, "", field_type, signature=_TEXT_FIELD)


@contextmanager
def writing(directory: Any, analyzer: Any, similarity: Any) -> Iterator[Any]:
    """Give a writer whose documents keep their order, as only neighbours are merged.

    At the end there is one segment; after an exception, which goes on, there is none.
    """
    config = lucene_class("index.IndexWriterConfig")(analyzer)
    config.setMergePolicy(lucene_class("index.LogDocMergePolicy")())
    config.setMergeScheduler(lucene_class("index.SerialMergeScheduler")())
    config.setRAMBufferSizeMB(BUFFER_MB)
    config.setSimilarity(similarity)
    writer = lucene_class("index.IndexWriter")(directory, config)
    try:
        yield writer
        writer.forceMerge(1)
        writer.close()
    except BaseException:  # ctrl-C too
        writer.rollback()  # closes its files
        raise


class LuceneSearcher:
    """Searches a reader by a similarity; queries may be of any length."""

    def __init__(self, reader: Any, similarity: Any) -> None:
        searcher = lucene_class("search.IndexSearcher")
        searcher.setMaxClauseCount(2**31 - 1)  # for all of this process; else 1024 terms a query
        self._searcher = searcher(reader, signature=_READER)
        self._searcher.setSimilarity(similarity)
        self._to_json = java_class("com.fasterxml.jackson.databind.ObjectMapper")()

    def search(self, query: Any, k: int) -> tuple[Int64, Float64]:
        """Return numbers and scores of the k best documents, best first."""
        found = self._searcher.search(query, k)
        # To read hits one by one would take as long as to find them.
        hits = json.loads(self._to_json.writeValueAsString(found))["scoreDocs"]
        scores = np.array([hit["score"] for hit in hits], dtype=np.float32).astype(np.float64)
        return np.array([hit["doc"] for hit in hits], dtype=np.int64), scores
