"""The engine: builds an index folder and answers from it with a proof."""

from dupmae.engine.borrow import Borrow
from dupmae.engine.build import build_index
from dupmae.engine.chunking import Chunk
from dupmae.engine.corpus import (
    corpus_hash,
    count_documents,
    read_corpus,
    read_id_file,
    to_document,
)
from dupmae.engine.explain import Explanation, TermMatch, explain
from dupmae.engine.export import export_index
from dupmae.engine.facets import FacetValue
from dupmae.engine.filter_grammar import parse_filter, parse_keys
from dupmae.engine.filters import And, Compare, Exists, Filter, In, Key, Not, Or
from dupmae.engine.found import Found, look_up
from dupmae.engine.manifest import Manifest, read_manifest
from dupmae.engine.merge import compact
from dupmae.engine.pyserini_export import to_pyserini
from dupmae.engine.pyserini_import import from_pyserini
from dupmae.engine.records import (
    bound_field,
    explanation_fields,
    facet_fields,
    hit_fields,
    manifest_fields,
)
from dupmae.engine.search import SearchEngine
from dupmae.engine.snapshot import restore_index, snapshot_index
from dupmae.engine.snippets import Highlight, Snippet, snippet, snippets
from dupmae.engine.update import delete_documents, delete_matching
from dupmae.engine.vectors import VectorFiles
from dupmae.engine.verify import verify_index
from dupmae.engine.weights import Weights

__all__ = [
    "And",
    "Borrow",
    "Chunk",
    "Compare",
    "Exists",
    "Explanation",
    "FacetValue",
    "Filter",
    "Found",
    "Highlight",
    "In",
    "Key",
    "Manifest",
    "Not",
    "Or",
    "SearchEngine",
    "Snippet",
    "TermMatch",
    "VectorFiles",
    "Weights",
    "bound_field",
    "build_index",
    "compact",
    "corpus_hash",
    "count_documents",
    "delete_documents",
    "delete_matching",
    "explain",
    "explanation_fields",
    "export_index",
    "facet_fields",
    "from_pyserini",
    "hit_fields",
    "look_up",
    "manifest_fields",
    "parse_filter",
    "parse_keys",
    "read_corpus",
    "read_id_file",
    "read_manifest",
    "restore_index",
    "snapshot_index",
    "snippet",
    "snippets",
    "to_document",
    "to_pyserini",
    "verify_index",
]
