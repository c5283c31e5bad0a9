"""Settings of the heads: how a model's states become two vectors, and how these are weighed.

`model.py` and `term_weights.py` carry them out, with torch and without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from dupmae.errors import UsageError

Activation = Literal["log1p_relu", "log1p2_relu", "none"]
CORPUS_PRIOR = 1000.0
"""Documents of training text that are counted with a corpus; 0 to 3000 measure alike."""
USUAL_TERMS = 10
"""A query of so many equal terms weighs the same by every norm."""
LEAST_IDF = 0.05
"""What idf of the training text is taken to be at least where it divides."""


@dataclass(frozen=True)
class HeadSettings:
    """How the two vectors are formed; saved as `dupmae.json` beside the weights."""

    dense_dim: int = 384
    """d', dimensions of the dense vector."""
    normalize: bool = True
    """Divide the dense vector by its ℓ2 norm."""
    activation: Activation = "log1p_relu"
    """What makes term weights of the max-pooled logits."""
    cls_attention: bool = False
    """[CLS] reads all last states once more (`cls_attention.py`) before W_cls."""
    expansion: float = 1.0
    """Factor on the weights of terms that the text does not contain; 0 turns expansion off."""
    expand_documents: bool = True
    """Give such terms to documents too, and not to queries alone."""
    k_expansion: int = 64
    """Most of them that a query gets, the heaviest."""
    k_neighbours: int = 0
    """How many terms each of a text's own may bring, those of the nearest word embeddings; 0: any
    term of the vocabulary may come."""
    frequency_k1: float = 0.0
    """BM25's k1: how slowly a document's weight saturates with a term's frequency; 0: at once."""
    frequency_b: float = 0.4
    """How much of that is relative to the document's length: BM25's b."""
    frequency_length: float = 200.0
    """Tokens of a document of usual length."""
    corpus_idf: float = 0.0
    """Power of (idf in the searched corpus ÷ idf in the training text) on a query's terms."""
    normalize_query_terms: bool = False
    """Divide a query's own terms by their ℓ2 norm before the gain, and those that expand it by
    theirs, so that `expansion` is the length of the latter in units of the former."""
    query_norm: float = 2.0
    """p of the ℓp norm that a query is divided by in the end, with `normalize_query_terms`, scaled
    so that `USUAL_TERMS` equal terms have length 1. Below 2 the sparse part weighs more in short
    queries and less in long ones."""
    k_document: int = 384
    """Terms kept of a document, those of the largest weight × query weight."""
    k_query: int = 64
    """Terms kept of a query."""
    max_document_length: int = 256
    """Tokens read of a document, [CLS] and [SEP] included."""
    max_query_length: int = 256
    """Tokens read of a query, [CLS] and [SEP] included."""
    dense_weight: float = 1.0
    """w_d of the score."""
    sparse_weight: float = 1.0
    """w_s of the score."""
    feedback: float = 0.0
    """β: how far a query is moved towards the documents that answer it best; 0 turns it off."""
    borrowed_terms: int = 0
    """Terms that a document may borrow from its neighbours in an index (`engine/borrow.py`)."""

    @property
    def document_expansion(self) -> float:
        """`expansion` of documents; 0 if queries alone are expanded."""
        return self.expansion if self.expand_documents else 0.0

    def expands(self, *, as_query: bool) -> bool:
        """Return whether a text gets terms that it does not contain."""
        return (self.expansion if as_query else self.document_expansion) > 0

    def __post_init__(self) -> None:
        if self.activation not in get_args(Activation):
            known = ", ".join(get_args(Activation))
            raise UsageError(f"activation must be one of {known}, found {self.activation!r}")
        for names, least, most in _RANGES:
            for name in names:
                value = getattr(self, name)
                if not least <= value <= most:  # false for NaN too
                    upper = {math.inf: "", _LARGEST: " and finite"}.get(
                        most, f" and at most {most:g}"
                    )
                    raise UsageError(f"{name} must be at least {least:g}{upper}, found {value}")
        if self.frequency_length == 0:
            raise UsageError("frequency_length must be above 0, found 0")


_LARGEST = 1e30
"""Of numbers that must be finite."""
_RANGES: tuple[tuple[tuple[str, ...], float, float], ...] = (
    (("dense_dim", "k_document", "k_query", "k_expansion"), 1, math.inf),
    (("max_document_length", "max_query_length"), 3, math.inf),  # room for one token
    (("k_neighbours", "borrowed_terms"), 0, math.inf),
    (("expansion", "frequency_b"), 0, 1),
    (("frequency_k1", "frequency_length", "corpus_idf"), 0, _LARGEST),
    (("query_norm",), 1, _LARGEST),
    (("dense_weight", "sparse_weight", "feedback"), 0, _LARGEST),
)
"""Settings, and the least and the most that each may be."""


def check_servable(
    heads: HeadSettings, *, dense_dim: int, positions: int, cls_attention: bool, knows_idf: bool
) -> None:
    """Raise UsageError unless the settings fit the weights and give vectors that can be stored.

    Args:
        heads: the settings.
        dense_dim: rows of W_cls.
        positions: the longest text that the body can read.
        cls_attention: whether the weights have that attention.
        knows_idf: whether they hold the training text's idf.
    """
    if heads.activation == "none":
        raise UsageError(
            "activation 'none' gives weights below 0, which a sparse vector cannot hold; it is "
            "for training. Encode with log1p_relu or log1p2_relu"
        )
    if heads.dense_dim != dense_dim:
        raise UsageError(f"dense_dim is {heads.dense_dim}, but the model was made with {dense_dim}")
    if heads.cls_attention != cls_attention:
        raise UsageError(
            f"cls_attention is {heads.cls_attention}, but the model was made "
            f"with {not heads.cls_attention}"
        )
    if heads.corpus_idf and not knows_idf:
        raise UsageError(
            f"corpus_idf is {heads.corpus_idf}, but the model knows no idf of its training text"
        )
    longest = max(heads.max_document_length, heads.max_query_length)
    if longest > positions:
        raise UsageError(
            f"a text may have {longest} tokens, but the model has {positions} positions"
        )
