"""Runs of two baselines that nobody trained for search like ours: MiniLM, and its sum with BM25.

    python benchmarks/untrained.py scifact --data DIR --minilm FOLDER --out runs/eval

`minilm.trec`: all-MiniLM-L6-v2, the mean of the last states of the first 256 tokens, as a unit
vector. `untrained-sum.trec`: its cosine plus WEIGHT times BM25 over its own wordpieces. A
document's weight for a wordpiece is BM25's saturated frequency, a query's is the idf in the corpus.
One weight serves all queries, so both are sums of two inner products, as ours is.

Title and text are joined by one space, as our encoder reads them. All documents are scored; ties
are in the order of the corpus. Vectors are kept below `--out`, block by block, and used again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from scipy.sparse import csr_array
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from dupmae.engine import corpus_hash, read_corpus
from dupmae.eval import Run, open_collection, write_run
from dupmae.files import replacing
from dupmae.types import Float32, Float64

MAX_TOKENS = 256
"""What the model was trained on, and its own configuration."""
K1, B = 0.9, 0.4
WEIGHT = 0.02
"""Of BM25. Chosen on SciFact, NFCorpus and Cranfield before this project (`docs/results.md`)."""
HITS = 1001
"""A query's own document is dropped when runs are measured."""

_BLOCK = 512  # documents a file, and queries scored at once
_BATCH = 32


class MiniLM:
    """The model and its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder).eval()

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest wordpiece."""
        return len(self._tokenizer)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Float32:
        """Return unit vectors (n, 384)."""
        vectors = np.empty((len(texts), self._model.config.hidden_size), dtype=np.float32)
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(texts), _BATCH):
            places = by_length[start : start + _BATCH]
            batch = self._tokenizer(
                [texts[place] for place in places],
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            )
            mask = batch["attention_mask"][:, :, None]
            states = self._model(**batch).last_hidden_state
            means = (states * mask).sum(dim=1) / mask.sum(dim=1)
            vectors[places] = torch.nn.functional.normalize(means, dim=1).numpy()
        return vectors

    def count(self, texts: Sequence[str]) -> csr_array[Any, Any]:
        """Return how often each wordpiece is in each whole text, (n, vocabulary)."""
        rows = self._tokenizer(
            list(texts), add_special_tokens=False, verbose=False, return_attention_mask=False
        )["input_ids"]
        indptr = np.cumsum([0, *map(len, rows)])
        terms = np.concatenate([np.array(row, dtype=np.int64) for row in rows])
        counts = csr_array(
            (np.ones(len(terms)), terms, indptr), shape=(len(rows), self.vocabulary_size)
        )
        counts.sum_duplicates()
        return counts


@dataclass(frozen=True, eq=False)
class Bm25:
    """`weights` (N, V): a document's for each wordpiece; `idf` (V,): a query's."""

    weights: csr_array[Any, Any]
    idf: Float64

    @classmethod
    def of(cls, counts: csr_array[Any, Any]) -> Bm25:
        """Weigh the wordpieces of a corpus."""
        lengths = np.asarray(counts.sum(axis=1))
        documents = len(lengths)
        frequency = np.bincount(counts.indices, minlength=counts.shape[1])
        idf = np.log1p((documents - frequency + 0.5) / (frequency + 0.5))
        saturation = K1 * (1 - B + B * lengths / max(1.0, lengths.mean()))
        weights = counts.copy()
        owners = np.repeat(np.arange(documents), np.diff(counts.indptr))
        weights.data = counts.data / (counts.data + saturation[owners])
        return cls(weights, idf)

    def scores(self, queries: csr_array[Any, Any]) -> Float64:
        """Score every document for queries given as counts, (m, N)."""
        products = (queries * self.idf[None, :]).tocsr() @ self.weights.T
        dense: Float64 = products.toarray()
        return dense


def corpus_vectors(model: MiniLM, texts: Sequence[str], folder: Path) -> Float32:
    """Return the vectors of a corpus, (N, 384); finished blocks are files in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks = []
    for start in tqdm(range(0, len(texts), _BLOCK), desc="MiniLM", unit="block", disable=None):
        path = folder / f"{start:09}.npy"
        if not path.is_file():
            with replacing(path) as file:
                np.save(file, model.encode(texts[start : start + _BLOCK]))
        blocks.append(np.load(path))
    return np.concatenate(blocks)


def search(
    model: MiniLM, vectors: Float32, bm25: Bm25, doc_ids: Sequence[str], queries: Mapping[str, str]
) -> dict[str, Run]:
    """Answer queries by both baselines."""
    names = list(queries)
    runs: dict[str, Run] = {"minilm": {}, "untrained-sum": {}}
    for start in range(0, len(names), _BLOCK):
        some = names[start : start + _BLOCK]
        texts = [queries[name] for name in some]
        dense = (model.encode(texts) @ vectors.T).astype(np.float64)
        both = dense + WEIGHT * bm25.scores(model.count(texts))
        for run, scores in zip(runs.values(), (dense, both), strict=True):
            run.update(zip(some, _best(scores, doc_ids), strict=True))
    return runs


def _best(scores: Float64, doc_ids: Sequence[str]) -> Iterator[list[tuple[str, float]]]:
    for row in scores:
        best = np.argsort(-row, kind="stable")[:HITS].tolist()
        yield [(doc_ids[ordinal], float(row[ordinal])) for ordinal in best]


def write_runs(
    name: str, data: Path, minilm: Path, out: Path, split: str | None = None
) -> list[Path]:
    """Write the runs of one collection, and return their files."""
    collection = open_collection(name, split=split, data_dirs=[data])
    documents = list(read_corpus(collection.corpus_path))
    texts = [document.content for document in documents]
    model = MiniLM(minilm)
    vectors = corpus_vectors(model, texts, out / name / f"minilm-{corpus_hash(documents)[:12]}")
    doc_ids = [document.doc_id for document in documents]
    runs = search(model, vectors, Bm25.of(model.count(texts)), doc_ids, collection.queries)
    paths = []
    for system, run in runs.items():
        paths.append(out / name / f"{system}.trec")
        write_run(run, paths[-1], tag=system)
    return paths


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--minilm", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/eval"))
@click.option("--split", help="Which queries.  [default: test; msmarco: dev]")
def main(names: Sequence[str], data: Path, minilm: Path, out: Path, split: str | None) -> None:
    """Write the runs of some collections."""
    for name in names:
        for path in write_runs(name, data, minilm, out, split):
            click.echo(path)


if __name__ == "__main__":
    main()
