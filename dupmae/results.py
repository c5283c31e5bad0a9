"""What a search answers: hits, and whether they are proven."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, overload

from dupmae.types import Float32, Int32, Passage

Row = TypeVar("Row", covariant=True)


class Hit(NamedTuple):
    """One found document. `score` = w_d · `dense` + w_s · `sparse`, all float64 and exact.

    `passage` is the one that scores so, the document's best; None where documents are not split.
    """

    doc_id: str
    score: float
    dense: float
    sparse: float
    passage: Passage | None = None


class Scored(NamedTuple):
    """What a ranking says of a document."""

    doc_id: str
    score: float


class _Columns(Sequence[Row]):
    """Rows, best first, kept as columns: an evaluation reads two of them of millions.

    Equal to any sequence of the same rows.
    """

    __slots__ = ("_columns",)
    _row: ClassVar[Callable[..., Any]]
    """Makes a row of a value of each column."""

    def __init__(self, *columns: Sequence[Any]) -> None:
        self._columns = columns
        if len(set(map(len, columns))) > 1:
            raise ValueError(f"columns of {', '.join(map(str, map(len, columns)))} hits")

    @property
    def doc_ids(self) -> Sequence[str]:
        """The first column."""
        return self._columns[0]

    @property
    def scores(self) -> Sequence[float]:
        """The second column."""
        return self._columns[1]

    def __len__(self) -> int:
        return len(self.doc_ids)

    def __iter__(self) -> Iterator[Row]:
        return map(self._row, *self._columns)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> Self: ...

    def __getitem__(self, place: int | slice) -> Row | Self:
        fields = [column[place] for column in self._columns]
        row: Row | Self = type(self)(*fields) if isinstance(place, slice) else self._row(*fields)
        return row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}{list(self)}"


class RankedIds(_Columns[Scored]):
    """Ids and scores alone."""

    __slots__ = ()
    _row = Scored

    def __init__(self, doc_ids: Sequence[str] = (), scores: Sequence[float] = ()) -> None:
        """Take both columns."""
        super().__init__(doc_ids, scores)


class Hits(_Columns[Hit]):
    """All fields of found documents."""

    __slots__ = ()
    _row = Hit

    def __init__(
        self,
        doc_ids: Sequence[str] = (),
        scores: Sequence[float] = (),
        dense: Sequence[float] = (),
        sparse: Sequence[float] = (),
        passages: Sequence[Passage | None] | None = None,
    ) -> None:
        """Take the fields of all hits, in one order; `passages` may be left out."""
        split = () if passages is None else (passages,)
        super().__init__(doc_ids, scores, dense, sparse, *split)

    def ranked(self) -> RankedIds:
        """Return ids and scores."""
        return RankedIds(self.doc_ids, self.scores)


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
