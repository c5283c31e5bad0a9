"""The systems that `eval --systems` takes: their names, and those made of nothing but texts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dupmae.commands.extras import require_extra
from dupmae.errors import UsageError

if TYPE_CHECKING:
    from dupmae.eval import System
    from dupmae.types import Document

OWN = ("hybrid", "no-feedback", "dense", "sparse", "fast")
BM25 = ("bm25", "bm25-stem", "bm25-lucene")
FUSIONS = ("rrf", "minmax", "convex")
SENTENCES = ("st", "st-sparse")
OF_PLACES = ("run", "index", "model", *SENTENCES)


def parse_systems(given: Sequence[str]) -> list[str]:
    """Return the systems named by options, which may be lists with commas, each once.

    Raises:
        UsageError: if one is unknown, or needs a package that is not installed.
    """
    names = [name.strip() for option in given for name in option.split(",") if name.strip()]
    known = (*OWN, *BM25, *FUSIONS)
    for name in names:
        kind, _, place = name.partition(":")
        if name not in known and not (kind in OF_PLACES and place):
            near = difflib.get_close_matches(name, known, n=1)
            guess = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(
                f"no system {name!r}{guess}; there are {', '.join(known)}, run:FILE, "
                "index:FOLDER, model:FOLDER, st:MODEL and st-sparse:MODEL"
            )
        if kind in SENTENCES:
            require_extra("sentence-transformers", name)
    return list(dict.fromkeys(names))


def system_of_texts(name: str, documents: Iterable[Document]) -> System:
    """Make a kind of BM25, or another's model with the vectors of all documents.

    Raises:
        DupMAEError: if it cannot be had; of Lucene and of models a line says why.
    """
    from dupmae.eval.bm25 import Bm25
    from dupmae.eval.systems import Positional

    if name == "bm25-lucene":
        from dupmae.indexes.lucene_text import LuceneTextIndex

        return Positional.build(documents, LuceneTextIndex)
    if name in BM25:
        return Bm25(documents, stem=name == "bm25-stem")
    from dupmae.integrations.sentence_index import SentenceIndex, load_sentence_model

    kind, _, place = name.partition(":")
    model = load_sentence_model(place, sparse=kind == "st-sparse")
    return Positional.build(documents, lambda texts: SentenceIndex(model, texts))


def file_name(system: str) -> str:
    """Return a system's name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", system)
