"""Stores: forward vectors, candidate stores over them, documents."""

from dupmae.indexes.base import DenseIndex, SparseIndex
from dupmae.indexes.documents import DocumentStore, DocumentWriter
from dupmae.indexes.exact import ExactDense, ExactSparse
from dupmae.indexes.faiss_store import FaissFlat
from dupmae.indexes.forward import ForwardStore, ForwardWriter
from dupmae.indexes.inverted import InvertedIndex
from dupmae.indexes.lucene_store import LuceneImpactIndex
from dupmae.indexes.tantivy_store import TantivyImpactIndex
from dupmae.indexes.topk import top_k

__all__ = [
    "DenseIndex",
    "DocumentStore",
    "DocumentWriter",
    "ExactDense",
    "ExactSparse",
    "FaissFlat",
    "ForwardStore",
    "ForwardWriter",
    "InvertedIndex",
    "LuceneImpactIndex",
    "SparseIndex",
    "TantivyImpactIndex",
    "top_k",
]
