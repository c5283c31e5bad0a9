"""Collections in BEIR layout: where they lie, what they ask and what was judged.

A collection is a folder with `corpus.jsonl`, `queries.jsonl` and `qrels/<split>.tsv`, any of them
gzipped if its name ends with `.gz`. The corpus is not read here: a `Collection` says where it is.
"""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dupmae.errors import DataError
from dupmae.eval.files import text_lines

Qrels = dict[str, dict[str, int]]
"""Query id → document id → grade; above 0 is relevant."""

_TUNING_QUERIES = 1000  # more would not move a single weight


@dataclass(frozen=True, slots=True)
class Collection:
    """The judged queries of one split, and the corpus that they are asked of.

    `queries` and `qrels` have the same keys: a query without judgements is not asked, and a
    judged query without a text cannot be.
    """

    name: str
    split: str
    queries: dict[str, str]
    qrels: Qrels
    corpus_path: Path
    repeated_judgements: int = 0

    def __post_init__(self) -> None:
        if self.queries.keys() != self.qrels.keys():
            raise ValueError("queries and qrels must have the same query ids")

    def judgements(self, known_documents: Container[str]) -> dict[str, int]:
        """Count what was judged, and what of that a reader of figures may stumble over.

        Args:
            known_documents: the ids in the corpus. Judgements of others stay: a relevant document
                that no system can find counts against all, as in trec_eval.
        """
        grades = [grade for judged in self.qrels.values() for grade in judged.values()]
        return {
            "judged": len(grades),
            "relevant": sum(grade > 0 for grade in grades),
            "graded_above_1": sum(grade > 1 for grade in grades),
            "negative": sum(grade < 0 for grade in grades),
            "repeated": self.repeated_judgements,
            "of_unknown_documents": sum(
                doc_id not in known_documents for judged in self.qrels.values() for doc_id in judged
            ),
            "queries_without_relevant": sum(
                max(judged.values()) <= 0 for judged in self.qrels.values()
            ),
        }


def default_split(name: str) -> str:
    """Return the split that published figures of a collection are about.

    Source: BEIR, table 1: `test`, but `dev` for MS MARCO, whose test split is TREC DL 2019.
    """
    return "dev" if name == "msmarco" else "test"


def cache_folder() -> Path:
    """Return where downloaded collections are kept: `$DUPMAE_CACHE/beir`, or below `~/.cache`."""
    root = os.environ.get("DUPMAE_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "dupmae") / "beir"


def collection_places(data_dirs: Sequence[Path] = ()) -> list[Path]:
    """Return the folders that may hold collections: given ones, `$DUPMAE_DATA`, the cache.

    `$DUPMAE_DATA` may name several folders, separated as in `$PATH`.
    """
    named = os.environ.get("DUPMAE_DATA", "").split(os.pathsep)
    return [*map(Path, data_dirs), *(Path(folder) for folder in named if folder), cache_folder()]


def find_collection(name: str, data_dirs: Sequence[Path] = ()) -> Path | None:
    """Return the folder of a collection, or None if no place holds a folder of that name.

    Args:
        name: such as `scifact`, or `cqadupstack/android` for a part of a collection; or the path
            of a folder in BEIR layout, wherever it is.
        data_dirs: folders to look in first; each may hold the collection or be it.
    """
    for place in collection_places(data_dirs):
        if (place / name).is_dir():
            return place / name
        if place.name == name and place.is_dir():
            return place
    return Path(name) if (Path(name) / "qrels").is_dir() else None


def load_beir(
    folder: Path | str, split: str | None = None, *, name: str | None = None
) -> Collection:
    """Read the queries and judgements of one split.

    Args:
        folder: the collection's folder.
        split: name of a file in `qrels/`; the default is `default_split(name)`.
        name: what reports call the collection; the default is the folder's name.

    Raises:
        DataError: if a file is missing or a line cannot be read; it names file and line.
    """
    folder = Path(folder)
    name = name or folder.resolve().name
    split = split or default_split(name)
    corpus_path = _required(folder, "corpus.jsonl")
    queries_path = _required(folder, "queries.jsonl")
    qrels, repeated = _read_qrels(_qrels_path(folder, split))
    queries = {
        query_id: text for query_id, text in _read_queries(queries_path) if query_id in qrels
    }
    for query_id in qrels:
        if query_id not in queries:
            raise DataError(
                f"{folder}: split {split} judges query {query_id!r}, "
                f"which {queries_path.name} does not hold; the two do not belong together"
            )
        if not queries[query_id].strip():
            raise DataError(f"{queries_path}: query {query_id!r} is judged but its text is empty")
    return Collection(
        name,
        split,
        queries,
        {query_id: qrels[query_id] for query_id in queries},
        corpus_path,
        repeated,
    )


def tuning_split(collection: Collection, *, seed: int = 0) -> Collection | None:
    """Return a split to choose settings on: `dev`, or else `train`; None if there is neither.

    Never the collection's own split, and without its queries; at most 1,000, drawn at random.
    """
    folder = collection.corpus_path.parent
    for split in ("dev", "train"):
        there = any((folder / "qrels" / f"{split}.tsv{end}").is_file() for end in ("", ".gz"))
        if split == collection.split or not there:
            continue
        found = load_beir(folder, split, name=collection.name)
        others = sorted(found.queries.keys() - collection.queries.keys())
        chosen = random.Random(seed).sample(others, min(len(others), _TUNING_QUERIES))
        if chosen:
            queries = {query_id: found.queries[query_id] for query_id in chosen}
            qrels = {query_id: found.qrels[query_id] for query_id in chosen}
            return replace(found, queries=queries, qrels=qrels)
    return None


def read_qrels(path: Path) -> Qrels:
    """Read judgements: a line `query-id corpus-id score`, separated by tabs, header or not.

    Grades are integers and may be negative, as in TREC-COVID. A repeated line is harmless; one
    that contradicts an earlier line is an error.
    """
    return _read_qrels(path)[0]


def _read_qrels(path: Path) -> tuple[Qrels, int]:
    """Return the judgements of a file, and how many of its lines repeat an earlier one."""
    qrels: Qrels = {}
    lines = 0
    for number, line in text_lines(path):
        where = f"{path}, line {number}"
        fields = _fields(line, where)
        if number == 1 and fields[-1].strip().lower() == "score":
            continue
        query_id, doc_id, grade = _judgement(fields, where)
        lines += 1
        earlier = qrels.setdefault(query_id, {}).setdefault(doc_id, grade)
        if earlier != grade:
            raise DataError(
                f"{where}: judges document {doc_id!r} for query {query_id!r} "
                f"as {grade}, an earlier line as {earlier}; keep one of them"
            )
    if not qrels:
        raise DataError(f"{path} holds no judgements; expected lines of query-id, corpus-id, score")
    return qrels, lines - sum(map(len, qrels.values()))


def _fields(line: str, where: str) -> list[str]:
    """Split a line; BEIR's csv.writer quotes fields that hold a quote, as DBpedia's ids do."""
    if '"' not in line:
        return line.split("\t")
    try:
        return next(csv.reader([line], delimiter="\t"))
    except csv.Error as error:
        raise DataError(f"{where}: cannot be split into fields: {error}") from None


def _judgement(fields: list[str], where: str) -> tuple[str, str, int]:
    if len(fields) != 3 or not all(field.strip() for field in fields):
        raise DataError(
            f"{where}: expected query-id, corpus-id and score separated by tabs, "
            f"found {len(fields)} fields: {' | '.join(fields)[:80]}"
        )
    try:
        return fields[0], fields[1], int(fields[2])
    except ValueError:
        raise DataError(f"{where}: the score must be an integer, found {fields[2]!r}") from None


def _read_queries(path: Path) -> Iterator[tuple[str, str]]:
    """Yield id and text of each query; ids may not repeat."""
    seen: set[str] = set()
    for number, line in text_lines(path):
        where = f"{path}, line {number}"
        try:
            record: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON: {error}") from None
        record = record if isinstance(record, dict) else {}
        query_id, text = record.get("_id"), record.get("text")
        if not (isinstance(query_id, str) and query_id and isinstance(text, str)):
            raise DataError(
                f'{where}: expected an object with the strings "_id" and "text", found {line[:80]}'
            )
        if query_id in seen:
            raise DataError(f"{where}: query id {query_id!r} repeats; every query needs its own")
        seen.add(query_id)
        yield query_id, text


def _required(folder: Path, name: str) -> Path:
    """Return the file or its gzipped form, or say what the folder lacks and holds."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    parts = sorted(path.parent.name for path in folder.glob(f"*/{name}*"))
    cure = (
        f"it is made of parts ({', '.join(parts)}): evaluate each, as {folder.name}/{parts[0]}"
        if parts
        else "a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv"
    )
    raise DataError(f"{folder} has no {name}; {cure}")


def _qrels_path(folder: Path, split: str) -> Path:
    for path in (folder / "qrels" / f"{split}.tsv", folder / "qrels" / f"{split}.tsv.gz"):
        if path.is_file():
            return path
    splits = sorted({path.name.split(".")[0] for path in (folder / "qrels").glob("*.tsv*")})
    raise DataError(
        f"{folder} has no judgements qrels/{split}.tsv; "
        f"its splits are: {', '.join(splits) or 'none'}"
    )
