"""The engine: builds an index folder and answers from it with a proof."""

from dupmae.engine.build import build_index
from dupmae.engine.corpus import corpus_hash, count_documents, read_corpus
from dupmae.engine.explain import Explanation, TermMatch, explain
from dupmae.engine.export import export_index
from dupmae.engine.fusion import Weights
from dupmae.engine.manifest import Manifest, read_manifest, verify_checksums
from dupmae.engine.pyserini_export import to_pyserini
from dupmae.engine.pyserini_import import from_pyserini
from dupmae.engine.search import SearchEngine
from dupmae.engine.vectors import VectorFiles

__all__ = [
    "Explanation",
    "Manifest",
    "SearchEngine",
    "TermMatch",
    "VectorFiles",
    "Weights",
    "build_index",
    "corpus_hash",
    "count_documents",
    "explain",
    "export_index",
    "from_pyserini",
    "read_corpus",
    "read_manifest",
    "to_pyserini",
    "verify_checksums",
]
