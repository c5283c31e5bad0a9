"""Our exact search as a model for the `mteb` package, so that its tasks measure the whole sum.

For the two parts alone give `mteb.evaluate` the views of `sentence_transformers.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from mteb.models.model_meta import ModelMeta

from dupmae.encoder import Encoder
from dupmae.engine import SearchEngine, build_index
from dupmae.errors import UsageError
from dupmae.eval.runs import Ranked, falling_columns
from dupmae.types import Document


class ExactHybrid:
    """What `search` does, by `mteb`'s SearchProtocol.

    The index of the task that was given last lies in a temporary folder. Equal scores come out a
    little apart, in our order, since trec_eval would order them by id. Close it, or use it as a
    context manager.

    Args:
        encoder: with the weights and the feedback to search with.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._stack = ExitStack()
        self._engine: SearchEngine | None = None

    @classmethod
    def load(cls, folder: Path | str | None = None) -> ExactHybrid:
        """Load a model folder; the shipped `dupmae-mini` if None."""
        return cls(Encoder.load(folder))

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What `mteb` writes beside results; the revision is the seal of the model."""
        heads = self.encoder.heads
        return ModelMeta(
            loader=None,
            name=f"dupmae/{self.encoder.name}",
            revision=self.encoder.seal,
            release_date=None,
            languages=None,
            n_parameters=None,
            memory_usage_mb=None,
            max_tokens=heads.max_document_length,
            embed_dim=self.encoder.dense_dim,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["NumPy"],
            similarity_fn_name=None,
            use_instructions=False,
            training_datasets=None,
            model_type=["hybrid"],
        )

    def index(self, corpus: Iterable[Mapping[str, Any]], **options: Any) -> None:
        """Index documents with `id`, `text` and perhaps `title`; `options` are for other models."""
        self.close()
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="dupmae-"))) / "index"
        documents = (
            Document(str(row["id"]), row["text"], title=row.get("title") or "") for row in corpus
        )
        build_index(documents, self.encoder, folder)
        heads = self.encoder.heads
        engine = SearchEngine.open(
            folder,
            self.encoder,
            dense_weight=heads.dense_weight,
            sparse_weight=heads.sparse_weight,
            feedback=heads.feedback,
        )
        self._engine = self._stack.enter_context(engine)

    def search(
        self,
        queries: Iterable[Mapping[str, Any]],
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **options: Any,
    ) -> dict[str, dict[str, float]]:
        """Return the exact best documents of each query with their scores.

        Args:
            queries: with `id` and `text`.
            top_k: how many documents a query.
            top_ranked: of each query the only documents to score, in tasks that rerank.
            options: for other models.

        Raises:
            UsageError: if nothing was indexed.
        """
        if self._engine is None:
            raise UsageError("nothing is indexed yet; call index first, as mteb.evaluate does")
        texts = {str(row["id"]): row["text"] for row in queries}
        if top_ranked is not None:
            return {
                query_id: self._rerank(self._engine, text, top_ranked[query_id], top_k)
                for query_id, text in texts.items()
            }
        results = self._engine.search_batch(list(texts.values()), top_k)
        return {
            query_id: _apart(result.hits.ranked())
            for query_id, result in zip(texts, results, strict=True)
        }

    @staticmethod
    def _rerank(
        engine: SearchEngine, query: str, doc_ids: Sequence[str], k: int
    ) -> dict[str, float]:
        encoded = engine.encode([query], engine.weights)
        ordinals = np.array([engine.documents.ordinal(doc_id) for doc_id in doc_ids], np.int64)
        parts = engine.view.score(encoded.dense[0], *encoded.sparse.row(0), ordinals)
        scores = engine.weights.combine(*parts).tolist()
        order = sorted(range(len(scores)), key=lambda place: (-scores[place], ordinals[place]))
        return _apart([(doc_ids[place], scores[place]) for place in order[:k]])

    def close(self) -> None:
        """Remove the index."""
        self._engine = None
        self._stack.close()

    def __enter__(self) -> ExactHybrid:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _apart(hits: Ranked) -> dict[str, float]:
    return dict(zip(*falling_columns(hits), strict=True)) if hits else {}
