"""An MCP server over one index: search, get_document and explain as tools for an agent.

It only reads. Calls take turns, so that each sees one state of the index and the encoder may use
all cores; every search takes up the newest state first. Needs the extra `[mcp]`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

from dupmae import __version__
from dupmae.engine import Found, SearchEngine, TermMatch, explain, hit_fields, look_up
from dupmae.errors import DupMAEError
from dupmae.results import SearchResult
from dupmae.types import Passage

LARGEST_K = 100
LARGEST_OFFSET = 10_000
LONGEST_QUERY = 10_000
LONGEST_FILTER = 10_000
LONGEST_PART = 20_000
"""Characters of a document that one call returns at most: about 5,000 tokens of an agent's room."""

MOST_TERMS = 50
"""Terms of an explanation; the others, of the least weight, are only counted and added up."""

INSTRUCTIONS = """\
Search over a collection of documents. Answers are exact: a score is the sum of a dense and a \
sparse part, and `proven` says that no document outside the answer scores more than its last hit. \
Start with `search`; read more of a hit with `get_document`; `explain` says why it was found. \
Scores compare documents for one query, not queries with each other."""

Query = Annotated[
    str, Field(min_length=1, max_length=LONGEST_QUERY, description="What to look for, in words.")
]
DocumentId = Annotated[str, Field(description="The id of a document, as `search` gives it.")]
Where = Annotated[
    str | None,
    Field(
        max_length=LONGEST_FILTER,
        description="Only documents whose metadata match this filter, such as "
        '`year >= 2019 and (journal = "Nature" or tags in ("sea", "ship"))`.',
    ),
]


class ScoringPassage(BaseModel):
    """The passage of a long document by which it scores; `get_document` reads it from `start`."""

    number: int = Field(description="which of the document's passages, from 1")
    start: int = Field(description="its first character in the document's text")
    end: int = Field(description="the character behind its last one")


class FoundHit(BaseModel):
    """A found document with the snippet that carries most of its score."""

    rank: int
    id: str
    score: float = Field(description="w_d · dense + w_s · sparse, exactly")
    dense: float = Field(description="the similarity of meaning")
    sparse: float = Field(description="the sum over the terms that query and document share")
    title: str
    passage: ScoringPassage | None = Field(description="null where documents are not split")
    snippet: str


class FoundDocuments(BaseModel):
    """The best documents, best first."""

    proven: bool = Field(description="whether these are surely the best of all that match")
    proof: str = Field(description="the same in words")
    documents: int = Field(description="how many documents match the filter; all without one")
    hits: list[FoundHit]


class DocumentPart(BaseModel):
    """A part of a document's text."""

    id: str
    title: str
    text: str
    characters: int = Field(description="length of the whole text")
    next_start: int | None = Field(description="where to go on; null at the end of the text")
    metadata: dict[str, Any] = Field(description="what `where` filters by")


class Term(BaseModel):
    """A term of the query and what it adds to the sparse part."""

    term: str
    query_weight: float
    document_weight: float
    product: float


class ExplainedScore(BaseModel):
    """score = dense_weight · dense + sparse_weight · sparse; sparse = Σ products of all terms."""

    id: str
    rank: int
    documents: int = Field(description="how many documents are ranked")
    score: float
    dense_weight: float
    dense: float
    sparse_weight: float
    sparse: float
    passage: ScoringPassage | None = Field(description="null where documents are not split")
    terms: list[Term] = Field(description="by falling product")
    more_terms: int = Field(description="how many terms of small products are left out")
    more_terms_sum: float = Field(description="the sum of their products")
    missing: list[str] = Field(description="heaviest query terms that the document lacks")
    gap: float = Field(description="how far the score is below the 10th best; 0 among the first 10")


class Tools:
    """The tools, over one open engine."""

    def __init__(self, engine: SearchEngine) -> None:
        self._engine = engine
        self._turn = threading.Lock()

    def search(
        self,
        query: Query,
        k: Annotated[int, Field(ge=1, le=LARGEST_K, description="How many documents.")] = 10,
        offset: Annotated[
            int, Field(ge=0, le=LARGEST_OFFSET, description="How many of the best to leave out.")
        ] = 0,
        where: Where = None,
    ) -> FoundDocuments:
        """Find the k documents that answer a query best, exactly and proven."""
        with self._call() as engine:
            engine.reload()
            result = engine.search(query, k, offset=offset, where=where)
            found = look_up(engine, result, offset=offset)
            total = engine.count(where)
        return FoundDocuments(
            proven=result.proven,
            proof=_proof(result, total, offset),
            documents=total,
            hits=[_hit(each) for each in found],
        )

    def get_document(
        self,
        id: DocumentId,
        start: Annotated[int, Field(ge=0, description="First character of the part.")] = 0,
        length: Annotated[
            int, Field(ge=1, le=LONGEST_PART, description="Characters of the part, at most.")
        ] = 5000,
    ) -> DocumentPart:
        """Read a document, or the part of its text that begins at a character."""
        with self._call() as engine:
            (document,) = engine.documents.get([engine.documents.ordinal(id)])
        end = start + length
        return DocumentPart(
            id=id,
            title=document.title,
            text=document.text[start:end],
            characters=len(document.text),
            next_start=end if end < len(document.text) else None,
            metadata=dict(document.metadata),
        )

    def explain(self, query: Query, id: DocumentId, where: Where = None) -> ExplainedScore:
        """Say why a document has its score and rank for a query: its dense part and its terms."""
        with self._call() as engine:
            taken = explain(engine, query, id, where=where)
            total = engine.count(where)
        shown, others = taken.terms[:MOST_TERMS], taken.terms[MOST_TERMS:]
        return ExplainedScore(
            id=id,
            rank=taken.rank,
            documents=total,
            score=taken.score,
            dense_weight=taken.weights.dense,
            dense=taken.dense,
            sparse_weight=taken.weights.sparse,
            sparse=taken.sparse,
            passage=_passage(taken.passage),
            terms=[_term(term) for term in shown],
            more_terms=len(others),
            more_terms_sum=sum(term.product for term in others),
            missing=[term.text for term in taken.missing[:MOST_TERMS]],
            gap=taken.gap,
        )

    @contextmanager
    def _call(self) -> Iterator[SearchEngine]:
        """Wait for a turn; what a caller can cure becomes the answer's error."""
        with self._turn:
            try:
                yield self._engine
            except DupMAEError as error:
                raise ToolError(str(error)) from error


def make_server(engine: SearchEngine) -> MCPServer[Any]:
    """Return a server whose tools ask an open engine.

    Run it with `run("stdio")`, or `run("streamable-http", host="127.0.0.1", port=8765)`.
    """
    server: MCPServer[Any] = MCPServer(
        "dupmae",
        title="DupMAE Search",
        instructions=INSTRUCTIONS,
        version=__version__,
        log_level="WARNING",
    )
    tools = Tools(engine)
    reads_only = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    for tool in (tools.search, tools.get_document, tools.explain):
        server.add_tool(tool, annotations=reads_only)
    return server


def _proof(result: SearchResult, total: int, offset: int) -> str:
    if not result.proven:
        return f"not proven: another document may score up to {result.bound:.6g}"
    rest = total - offset - len(result.hits)
    if rest <= 0:
        return f"proven: all {total} documents that match were ranked"
    return f"proven: none of the other {rest} documents that match scores more than the last hit"


def _hit(found: Found) -> FoundHit:
    fields = {"passage": None, **hit_fields(found)}
    return FoundHit(**{**fields, "snippet": fields["snippet"]["text"]})


def _passage(passage: Passage | None) -> ScoringPassage | None:
    return None if passage is None else ScoringPassage(**asdict(passage))


def _term(term: TermMatch) -> Term:
    return Term(
        term=term.text,
        query_weight=term.query_weight,
        document_weight=term.document_weight,
        product=term.product,
    )
