"""BM25 by bm25s, the baseline of baselines, on the same texts that our encoder reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import bm25s
import numpy as np
import Stemmer

from dupmae.errors import DataError
from dupmae.eval.runs import Ranked
from dupmae.eval.systems import Answers
from dupmae.types import Document

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets DEBUG, whatever the root has

K1, B = 0.9, 0.4
"""Anserini's settings for BEIR."""


class Bm25:
    """Lucene's variant of BM25 over title and text joined by one space.

    Words are lower-cased runs of two or more letters, digits or underscores, without bm25s's list
    of English stop words; with `stem`, Snowball's English stems of them. Only documents that share
    a word with the query are found. Ties are in the order of the corpus.

    Raises:
        DataError: if no document has a word.
    """

    def __init__(self, documents: Iterable[Document], *, stem: bool = False) -> None:
        self._stemmer = Stemmer.Stemmer("english") if stem else None
        texts: list[str] = []
        self._doc_ids: list[str] = []
        for document in documents:
            self._doc_ids.append(document.doc_id)
            texts.append(document.content)
        words = self._words(texts, return_ids=True)
        if not any(words.ids):
            raise DataError(f"BM25 finds no word in the {len(texts):,} documents of the corpus")
        self._index = bm25s.BM25(k1=K1, b=B, method="lucene")
        self._index.index(words, show_progress=False)

    def search(self, queries: Mapping[str, str], k: int) -> Answers:
        """Score every document for each query."""
        words = self._words(list(queries.values()), return_ids=False)
        return Answers(
            {
                query_id: self._best(query_words, k)
                for query_id, query_words in zip(queries, words, strict=True)
            }
        )

    def _words(self, texts: list[str], *, return_ids: bool) -> Any:
        return bm25s.tokenize(
            texts,
            stopwords="en",
            stemmer=self._stemmer,
            return_ids=return_ids,
            show_progress=False,
        )

    def _best(self, words: list[str], k: int) -> Ranked:
        known = self._index.get_tokens_ids(words)
        if not known:
            return []
        scores = np.asarray(self._index.get_scores_from_ids(known), dtype=np.float64)
        found = np.flatnonzero(scores > 0)
        best = found[np.lexsort((found, -scores[found]))][:k]
        return [(self._doc_ids[ordinal], float(scores[ordinal])) for ordinal in best]
