"""BM25 by Lucene with Anserini's analysis of English, the baseline that the field's papers report.

Words are split by Unicode's rules, lower-cased, without possessive 's and Lucene's 33 stop words,
and cut to Porter's stems. Lucene keeps lengths of texts in a byte each, so long ones are rounded.
The index lies in Java's memory, and goes with the object.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tqdm import tqdm

from dupmae.errors import DupMAEError
from dupmae.indexes.jvm import java_class, java_lock, translated
from dupmae.indexes.lucene import LuceneSearcher, lucene_class, text_field, writing
from dupmae.indexes.topk import top_k
from dupmae.types import Ranking

K1, B = 0.9, 0.4
"""Anserini's settings."""

_CONTENTS = "contents"


class LuceneTextIndex:
    """Texts that share a word with the query, by BM25.

    Raises:
        DupMAEError: if Java or pyserini is missing, or Java's memory does not hold the index.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        with translated(_cannot_index), java_lock:
            similarity = lucene_class("search.similarities.BM25Similarity")(K1, B)
            english = java_class("io.anserini.analysis.DefaultEnglishAnalyzer")
            self._analyzer = english.newDefaultInstance()
            self._generator = java_class("io.anserini.search.query.BagOfWordsQueryGenerator")()
            directory = lucene_class("store.ByteBuffersDirectory")()
            with writing(directory, self._analyzer, similarity) as writer:
                _add(writer, texts)
            reader = lucene_class("index.DirectoryReader").open(directory)
            self._searcher = LuceneSearcher(reader, similarity)

    def search(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """Return at most k ≥ 1 texts a query, best first; a word said twice counts twice."""
        rankings = []
        for query in queries:
            with java_lock:
                words = self._generator.buildQuery(_CONTENTS, self._analyzer, query)
                ordinals, scores = self._searcher.search(words, k)
            rankings.append(top_k(scores, k, ordinals))
        return rankings


def _add(writer: Any, texts: Iterable[str]) -> None:
    field = text_field(_CONTENTS, norms=True)
    document = lucene_class("document.Document")()
    document.add(field)
    for text in tqdm(texts, desc="Lucene", unit="doc", disable=None):
        field.setStringValue(text)
        writer.addDocument(document)


def _cannot_index(text: str) -> DupMAEError:
    return DupMAEError(f"Lucene cannot index the texts: {text}")
