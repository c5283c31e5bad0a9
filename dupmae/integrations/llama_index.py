"""A LlamaIndex retriever; needs the extra `[llama-index]`."""

from __future__ import annotations

from typing import Any

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from dupmae.engine import Filter, SearchEngine
from dupmae.integrations.retrieval import FOUND, retrieve


class DupMAERetriever(BaseRetriever):
    """The k best documents of an open engine, exact and proven, as text nodes.

    A node's metadata are those of the index; under `dupmae`, which no language model is shown,
    stand rank, score, its dense and sparse part, and whether the answer is proven.
    """

    def __init__(
        self,
        engine: SearchEngine,
        *,
        k: int = 10,
        where: Filter | str | None = None,
        **settings: Any,
    ) -> None:
        """Retrieve from an open engine, which whoever opened it closes.

        Args:
            engine: where to search.
            k: documents a query.
            where: which documents count, as a filter or an expression.
            settings: those of `BaseRetriever`, such as `callback_manager`.
        """
        super().__init__(**settings)
        self._engine = engine
        self._k = k
        self._where = where

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(
                node=TextNode(
                    id_=found.doc_id,
                    text=found.text,
                    metadata=found.metadata,
                    excluded_llm_metadata_keys=[FOUND],
                    excluded_embed_metadata_keys=[FOUND],
                ),
                score=found.score,
            )
            for found in retrieve(self._engine, query_bundle.query_str, self._k, self._where)
        ]
