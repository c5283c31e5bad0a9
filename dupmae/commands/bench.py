"""What `eval` measures on one collection: indexes and systems, made when a system needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dupmae.commands.options import load_encoder
from dupmae.commands.systems import BM25, FUSIONS, OWN, SENTENCES, file_name, system_of_texts
from dupmae.errors import DataError, SealError, UsageError

if TYPE_CHECKING:
    from dupmae.commands.options import AnyEncoder
    from dupmae.engine import Manifest, SearchEngine
    from dupmae.eval import Collection, Explained, System, Weighted
    from dupmae.eval.systems import Remembered
    from dupmae.types import Document

_TERMS = 3  # of an explained document


class Encoders:
    """The model of --model and those of `model:` systems, each loaded once."""

    def __init__(self, model: str | None, threads: int | None, systems: Sequence[str]) -> None:
        self._model, self._threads = model, threads
        pairs = (name.partition(":") for name in systems)
        self._others = [place for kind, _, place in pairs if kind == "model"]
        self._loaded: dict[str | None, AnyEncoder] = {}

    def get(self, model: str | None = None) -> AnyEncoder:
        """Return the named model, or without a name that of --model."""
        name = model or self._model
        if name not in self._loaded:
            self._loaded[name] = load_encoder(name, self._threads)
        return self._loaded[name]

    def with_seal(self, seal: str) -> AnyEncoder | None:
        """Return the model of that seal, if it is one of these."""
        encoders = (self.get(name) for name in (None, *self._others))
        return next((encoder for encoder in encoders if encoder.seal == seal), None)


@dataclass
class Bench:
    """One collection, the folder that its indexes and runs go to, and what was made for it."""

    collection: Collection
    place: Path
    encoders: Encoders
    stack: ExitStack
    k: int
    seed: int
    hnsw: bool = False
    """Whether our index must have a graph."""
    notes: list[str] = field(default_factory=list)
    """What the report has to say of systems that are missing or were tuned."""

    @cached_property
    def corpus(self) -> tuple[str, frozenset[str]]:
        """The digest of the corpus, and the ids in it."""
        from dupmae.engine import corpus_hash, read_corpus

        ids: list[str] = []

        def noted() -> Iterator[Document]:
            for document in read_corpus(self.collection.corpus_path):
                ids.append(document.doc_id)
                yield document

        return corpus_hash(noted()), frozenset(ids)

    @cached_property
    def engine(self) -> SearchEngine:
        """Our index of the collection, opened; built first if it is not there."""
        return self._open(self.place / "index", self.encoders.get(), self.hnsw)

    @cached_property
    def own(self) -> dict[str, Weighted]:
        """What our engine can be measured as."""
        return _own_systems(self.engine)

    @cached_property
    def lists(self) -> tuple[Remembered, Remembered]:
        """Our dense and our sparse lists, kept for the fusions."""
        from dupmae.eval.systems import Remembered

        return Remembered(self.own["dense"]), Remembered(self.own["sparse"])

    @property
    def was_searched(self) -> bool:
        """Whether our own engine was needed."""
        return "engine" in self.__dict__

    def systems(self, names: Sequence[str]) -> dict[str, System]:
        """Return the named systems, or our own if none is named.

        One that cannot be had for this collection is left out, with a note; only `convex` can.
        """
        names = names or list(self.own)
        # Files first: whether they can be read is known at once, an index may take hours.
        first_files = sorted(names, key=lambda name: not name.startswith("run:"))
        made = {name: self._system(name) for name in first_files}
        return {name: system for name in names if (system := made[name]) is not None}

    def _system(self, name: str) -> System | None:
        from dupmae.engine import read_corpus

        kind, _, place = name.partition(":")
        if name in BM25 or kind in SENTENCES:
            return system_of_texts(name, read_corpus(self.collection.corpus_path))
        if name in FUSIONS:
            return self._fusion(name)
        if name in OWN:
            return self._own(name)
        make: dict[str, Callable[[str], System]] = {
            "run": self._run,
            "index": self._index,
            "model": self._model,
        }
        return make[kind](place)

    def _own(self, name: str) -> System:
        if name == "fast":
            return replace(self.own["hybrid"], mode="fast")
        if name not in self.own:
            raise UsageError(f"model {self.encoders.get().name} has no feedback to leave out")
        if name in ("dense", "sparse"):
            return self.lists[name == "sparse"]
        return self.own[name]

    def _fusion(self, name: str) -> System | None:
        from dupmae.eval.fusions import Fused, convex, min_max, reciprocal_rank

        if name == "rrf":
            return Fused(*self.lists, reciprocal_rank)
        if name == "minmax":
            return Fused(*self.lists, min_max)
        alpha = self._alpha()
        return None if alpha is None else Fused(*self.lists, convex(alpha))

    def _alpha(self) -> float | None:
        from dupmae.eval.beir import tuning_split
        from dupmae.eval.fusions import tune_alpha

        other = tuning_split(self.collection, seed=self.seed)
        if other is None:
            self.note(
                f"convex is left out: {self.collection.name} has no dev or train split "
                "to choose its weight on"
            )
            return None
        alpha = tune_alpha(*self.lists, other, self.k)
        self.note(
            f"convex: weight {alpha:g} of the dense part, chosen on "
            f"{len(other.queries):,} queries of the split {other.split}"
        )
        return alpha

    def _run(self, place: str) -> System:
        from dupmae.eval.systems import Recorded

        system = Recorded.read(Path(place))
        missing = len(self.collection.queries.keys() - system.run.keys())
        if missing == len(self.collection.queries):
            raise DataError(
                f"{place} answers none of the {missing:,} queries of {self.collection.name} "
                f"{self.collection.split}; it is a run of something else"
            )
        if missing:
            self.note(f"run:{place} lacks {missing:,} queries, which count as 0")
        return system

    def _index(self, place: str) -> System:
        from dupmae.engine import read_manifest

        manifest = read_manifest(Path(place))
        encoder = self.encoders.with_seal(manifest.encoder_seal)
        if encoder is None:
            raise SealError(
                f"index {place} was built by encoder {manifest.encoder_name} (seal "
                f"{manifest.encoder_seal[:12]}); name that encoder with --model "
                "or as a system model:FOLDER"
            )
        if manifest.corpus_hash != self.corpus[0]:
            raise DataError(
                f"index {place} holds other documents than {self.collection.corpus_path}; "
                "index that file to compare the two"
            )
        engine = self.stack.enter_context(_open_weighted(Path(place), encoder))
        return _own_systems(engine)["hybrid"]

    def _model(self, place: str) -> System:
        engine = self._open(self.place / f"index-{file_name(place)}", self.encoders.get(place))
        return _own_systems(engine)["hybrid"]

    def _open(self, folder: Path, encoder: AnyEncoder, hnsw: bool = False) -> SearchEngine:
        self._build(folder, encoder, hnsw)
        return self.stack.enter_context(_open_weighted(folder, encoder))

    def _build(self, folder: Path, encoder: AnyEncoder, hnsw: bool) -> Manifest:
        """Return the manifest of an index of this corpus by this encoder, built if need be."""
        from dupmae.engine import build_index, read_corpus, read_manifest
        from dupmae.engine.borrow import usual_borrow
        from dupmae.engine.fast import has_graph
        from dupmae.errors import IndexMissingError

        digest, ids = self.corpus
        try:
            manifest = read_manifest(folder)
            made_as = (manifest.encoder_seal, manifest.corpus_hash, manifest.borrow)
            is_ours = made_as == (encoder.seal, digest, usual_borrow(encoder))
            if is_ours and (not hnsw or all(map(has_graph, manifest.segments))):
                return manifest
        except IndexMissingError:
            pass  # none there, or a damaged one: made anew
        documents = read_corpus(self.collection.corpus_path)
        total = len(ids)
        return build_index(documents, encoder, folder, replace=True, total=total, hnsw=hnsw or None)

    def note(self, text: str) -> None:
        """Say something on stderr now, and in the report later."""
        click.echo(text, err=True)
        self.notes.append(text)

    def explain(self, query: str, doc_id: str) -> Explained | None:
        """Return how our model scores a document; None where it is not asked, or has it not."""
        from dupmae.engine import explain
        from dupmae.eval import Explained

        if not self.was_searched or doc_id not in self.corpus[1]:
            return None
        found = explain(self.engine, query, doc_id)
        terms = tuple(
            (term.text, found.weights.sparse * term.product) for term in found.terms[:_TERMS]
        )
        return Explained(
            doc_id,
            found.rank,
            found.score,
            found.weights.dense * found.dense,
            found.weights.sparse * found.sparse,
            terms,
        )


def _open_weighted(folder: Path, encoder: AnyEncoder) -> SearchEngine:
    """Open an index with the weights of the model."""
    from dupmae.commands.remembering import RememberingEngine

    heads = encoder.heads
    return RememberingEngine.open(
        folder,
        encoder,
        dense_weight=heads.dense_weight,
        sparse_weight=heads.sparse_weight,
        feedback=heads.feedback,
    )


def _own_systems(engine: SearchEngine) -> dict[str, Weighted]:
    from dupmae.eval.systems import own_systems

    return own_systems(
        engine,
        dense_weight=engine.weights.dense,
        sparse_weight=engine.weights.sparse,
        feedback=engine.weights.feedback,
    )
