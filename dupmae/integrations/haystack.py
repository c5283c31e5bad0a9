"""A Haystack component; needs the extra `[haystack]`."""

from __future__ import annotations

from typing import Any

from haystack import Document, component, default_to_dict

from dupmae.encoder import Encoder
from dupmae.engine import SearchEngine
from dupmae.integrations.retrieval import retrieve


@component
class DupMAERetriever:
    """The k best documents of an index, exact and proven.

    It is named by folders, so that a pipeline can be written to YAML and read again. A document's
    `meta` are its metadata in the index; under `dupmae` stand rank, score, its dense and sparse
    part, and whether the answer is proven.
    """

    def __init__(
        self, index: str, model: str | None = None, k: int = 10, where: str | None = None
    ) -> None:
        """Name what `warm_up` opens.

        Args:
            index: the index folder.
            model: a model folder or a name on the hub; the shipped one if None. Its own weights and
                feedback are used.
            k: documents a query.
            where: which documents count, as an expression.
        """
        self.index = index
        self.model = model
        self.k = k
        self.where = where
        self._engine: SearchEngine | None = None

    def warm_up(self) -> None:
        """Load the model and open the index, unless that was done."""
        if self._engine is None:
            encoder = Encoder.load(self.model)
            heads = encoder.heads
            self._engine = SearchEngine.open(
                self.index,
                encoder,
                dense_weight=heads.dense_weight,
                sparse_weight=heads.sparse_weight,
                feedback=heads.feedback,
            )

    @component.output_types(documents=list[Document])
    def run(self, query: str, k: int | None = None, where: str | None = None) -> dict[str, Any]:
        """Return the best documents for a query; `k` and `where` replace those of the component."""
        self.warm_up()
        assert self._engine is not None  # warm_up opened it
        found = retrieve(self._engine, query, k or self.k, where or self.where)
        documents = [
            Document(id=hit.doc_id, content=hit.text, meta=hit.metadata, score=hit.score)
            for hit in found
        ]
        return {"documents": documents}

    def to_dict(self) -> dict[str, Any]:
        """Return what the component is made again from."""
        settings = {"index": self.index, "model": self.model, "k": self.k, "where": self.where}
        written: dict[str, Any] = default_to_dict(self, **settings)
        return written
