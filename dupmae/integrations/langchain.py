"""A LangChain retriever; needs the extra `[langchain]`."""

from __future__ import annotations

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from dupmae.engine import Filter, SearchEngine
from dupmae.integrations.retrieval import retrieve


class DupMAERetriever(BaseRetriever):
    """The k best documents of an open engine, exact and proven.

    A document's metadata are those of the index; under `dupmae` stand rank, score, its dense and
    sparse part, and whether the answer is proven.
    """

    engine: SearchEngine
    """Where to search; whoever opened it closes it."""

    k: int = 10
    """Documents a query."""

    where: Filter | str | None = None
    """Which documents count, as a filter or an expression."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [
            Document(found.text, id=found.doc_id, metadata=found.metadata)
            for found in retrieve(self.engine, query, self.k, self.where)
        ]
