"""Collections of the `ir_datasets` library, by their ids there, such as `beir/nfcorpus/test`.

The library fetches what is not on this machine, or says what licence is needed. The corpus is
copied once to a `corpus.jsonl` in our cache, queries and judgements are read from the library each
time. Texts of documents and queries are what it calls their default text.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dupmae.errors import DataError, DupMAEError, UsageError
from dupmae.eval.beir import Collection, Qrels
from dupmae.eval.files import replacing_text

PREFIX = "irds:"
"""What stands before an id where folders and other names are possible too."""


def irds_collection(dataset_id: str, cache: Path) -> Collection:
    """Return a collection by its id; it is called after the part of it that names the documents.

    Args:
        dataset_id: of documents with queries and judgements.
        cache: the folder below which corpora are copied.

    Raises:
        UsageError: if the library is not installed.
        DataError: if it has no such id, cannot provide it, or judgements contradict each other.
    """
    library = _library()
    with _plain_errors(dataset_id):
        dataset = _dataset(library, dataset_id)
        name = library.docs_parent_id(dataset_id)
        corpus_path = cache / name / "corpus.jsonl"
        qrels, repeated = _qrels(dataset, dataset_id)
        texts = {query.query_id: query.default_text() for query in dataset.queries_iter()}
        missing = [query_id for query_id in qrels if not texts.get(query_id, "").strip()]
        if missing:
            raise DataError(
                f"{dataset_id} judges query {missing[0]!r}, which has no text there; "
                "the two do not belong together"
            )
        if not corpus_path.is_file():
            _copy_corpus(dataset, corpus_path)
    return Collection(
        name=name,
        split=dataset_id[len(name) + 1 :] or "all",
        queries={query_id: text for query_id, text in texts.items() if query_id in qrels},
        qrels={query_id: qrels[query_id] for query_id in texts if query_id in qrels},
        corpus_path=corpus_path,
        repeated_judgements=repeated,
    )


def _library() -> Any:
    try:
        import ir_datasets
    except ImportError:
        raise UsageError(
            "ids of ir_datasets need that library: pip install 'dupmae[ir-datasets]'"
        ) from None
    return ir_datasets


def _dataset(library: Any, dataset_id: str) -> Any:
    try:
        dataset = library.load(dataset_id)
    except KeyError:
        near = difflib.get_close_matches(dataset_id, list(library.registry), n=1)
        guess = f"; the nearest is {near[0]}" if near else ""
        raise DataError(f"ir_datasets knows no {dataset_id!r}{guess}") from None
    for kind in ("docs", "queries", "qrels"):
        if not dataset.has(kind):
            raise DataError(
                f"{dataset_id} of ir_datasets has no {kind}; an evaluation needs an id with docs, "
                "queries and qrels, often one that ends with a split"
            )
    return dataset


def _qrels(dataset: Any, dataset_id: str) -> tuple[Qrels, int]:
    """Return the judgements, and how many repeat an earlier one."""
    qrels: Qrels = {}
    repeated = 0
    for judgement in dataset.qrels_iter():
        query_id, doc_id, grade = judgement.query_id, judgement.doc_id, judgement.relevance
        of_query = qrels.setdefault(query_id, {})
        repeated += doc_id in of_query
        earlier = of_query.setdefault(doc_id, grade)
        if earlier != grade:
            raise DataError(
                f"{dataset_id} judges document {doc_id!r} for query {query_id!r} "
                f"as {grade}, and before as {earlier}"
            )
    if not qrels:
        raise DataError(f"{dataset_id} of ir_datasets holds no judgements")
    return qrels, repeated


def _copy_corpus(dataset: Any, path: Path) -> None:
    with replacing_text(path) as corpus:
        for document in dataset.docs_iter():
            record = {"_id": document.doc_id, "text": document.default_text().strip()}
            corpus.write(json.dumps(record, ensure_ascii=False) + "\n")


@contextmanager
def _plain_errors(dataset_id: str) -> Iterator[None]:
    """Say in a line what went wrong in the library: network, licence or disk, of any kind."""
    try:
        yield
    except DupMAEError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"ir_datasets cannot provide {dataset_id}: {reason[:300]}") from error
