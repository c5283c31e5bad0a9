"""What a search answers: hits, and whether they are proven."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

from dupmae.types import Float32, Int32, Passage


class Hit(NamedTuple):
    """One found document. `score` = w_d · `dense` + w_s · `sparse`, all float64 and exact.

    `passage` is the one that scores so, the document's best; None where documents are not split.
    """

    doc_id: str
    score: float
    dense: float
    sparse: float
    passage: Passage | None = None


class Hits(Sequence[Hit]):
    """Found documents, best first, kept as columns: an evaluation reads two of them of millions.

    Equal to any sequence of the same hits.
    """

    __slots__ = ("_columns", "doc_ids", "scores")

    def __init__(
        self,
        doc_ids: Sequence[str] = (),
        scores: Sequence[float] = (),
        dense: Sequence[float] = (),
        sparse: Sequence[float] = (),
        passages: Sequence[Passage | None] | None = None,
    ) -> None:
        """Take the fields of all hits, in one order; `passages` may be left out."""
        self.doc_ids = doc_ids
        self.scores = scores
        self._columns: tuple[Sequence[Any], ...]
        self._columns = (doc_ids, scores, dense, sparse, *([] if passages is None else [passages]))
        if len(set(map(len, self._columns))) > 1:
            raise ValueError(f"columns of {', '.join(map(str, map(len, self._columns)))} hits")

    def ranked(self) -> list[tuple[str, float]]:
        """Return (document id, score) of each."""
        return list(zip(self.doc_ids, self.scores, strict=True))

    def __len__(self) -> int:
        return len(self.doc_ids)

    def __iter__(self) -> Iterator[Hit]:
        return map(Hit, *self._columns)

    @overload
    def __getitem__(self, place: int) -> Hit: ...

    @overload
    def __getitem__(self, place: slice) -> Hits: ...

    def __getitem__(self, place: int | slice) -> Hit | Hits:
        fields: list[Any] = [column[place] for column in self._columns]
        return Hits(*fields) if isinstance(place, slice) else Hit(*fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Hits{list(self)}"


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to one query.

    `proven`: no document outside `hits` (and the pages before, if there are) can score more than
    the last hit. `bound`: the most that a document which was not scored exactly can score (−inf if
    all were scored). `depth`: the list length that both stores were read to, or how many documents
    a scan (`dupmae.engine.scan`) left to score or `dupmae.engine.fast` scored. `terms`: the query's
    terms (m,) and weights (m,) as they were searched for, those of feedback included.
    """

    query: str
    hits: Hits
    proven: bool
    bound: float
    depth: int
    terms: tuple[Int32, Float32] | None = field(default=None, compare=False, repr=False)

    @property
    def loss(self) -> float:
        """The most by which a document that is missing can score above the last hit."""
        return 0.0 if self.proven else self.bound - self.hits.scores[-1]
