"""Requests and answers as they are written in JSON; OpenAPI is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _whole(text: str) -> str:
    """Refuse half of a surrogate pair, which JSON can write but no text holds."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("holds half of a surrogate pair (\\ud800 to \\udfff); remove it")
    return text


Text = Annotated[str, AfterValidator(_whole)]
Weight = Annotated[float | None, Field(ge=0, le=1e100, allow_inf_nan=False)]
Index = Annotated[Text | None, Field(description="Name of the index; the first one if null.")]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Weighed(_Request):
    dense_weight: Weight = Field(None, description="w_d of this query; null: the model's.")
    sparse_weight: Weight = Field(None, description="w_s of this query; null: the model's.")
    feedback: Weight = Field(None, description="β of feedback; null: the model's; 0: none.")


class SearchRequest(_Weighed):
    """One query, or several with the same options."""

    query: Text | None = Field(None, examples=["does vitamin D prevent fractures?"])
    queries: list[Text] | None = Field(None, min_length=1, description="In place of `query`.")
    k: int = Field(10, ge=1, description="How many hits.")
    offset: int = Field(0, ge=0, description="How many of the best to leave out.")
    where: Text | None = Field(None, examples=[None], description='Such as "year >= 2019".')
    facets: list[Text] = Field([], max_length=20, description="Keys whose values are counted.")
    mode: Literal["exact", "fast"] = Field(
        "exact", description="fast: without proof, of an index with a graph; scores are exact."
    )
    snippets: bool = Field(True, description="Whether hits carry a passage with highlights.")
    texts: bool = Field(False, description="Whether hits carry the whole text.")
    index: Index = None

    @model_validator(mode="after")
    def _one_of_two(self) -> SearchRequest:
        if (self.query is None) == (self.queries is None):
            raise ValueError("give either query or queries")
        return self


class ExplainRequest(_Weighed):
    """A query, and the document whose score is to be taken apart."""

    query: Text = Field(examples=["does vitamin D prevent fractures?"])
    id: Text = Field(examples=["sun"])
    k: int = Field(10, ge=1, description="How far behind rank k the document is, if it is.")
    where: Text | None = Field(None, examples=[None])
    index: Index = None


class FacetsRequest(_Request):
    """Keys whose values are counted over all documents that match."""

    facets: list[Text] = Field(min_length=1, max_length=20, examples=[["journal"]])
    where: Text | None = Field(None, examples=[None])
    index: Index = None


class NewDocument(BaseModel):
    """A document to index; further keys are its metadata."""

    model_config = ConfigDict(strict=True, extra="allow", validate_by_alias=True)

    doc_id: str = Field(alias="_id", min_length=1, examples=["bone"])
    text: str = Field(examples=["Calcium and vitamin D keep bones strong."])
    title: str | None = Field(None, examples=["Bones"])


class IndexRequest(_Request):
    """Documents to add; they replace those of the same ids."""

    documents: list[NewDocument] = Field(min_length=1)
    index: Index = None


class DeleteRequest(_Request):
    """Which documents to delete: all of these ids or none, or all that match a filter."""

    ids: list[Text] | None = Field(None, min_length=1, examples=[["bone"]])
    where: Text | None = Field(None, examples=[None])
    index: Index = None

    @model_validator(mode="after")
    def _one_of_two(self) -> DeleteRequest:
        if (self.ids is None) == (self.where is None):
            raise ValueError("give either ids or where")
        return self


class Highlight(BaseModel):
    """Characters of a snippet that are a query's term, and what it adds to the score."""

    start: int
    end: int
    weight: float


class Snippet(BaseModel):
    """A passage of a document; highlights count its Unicode code points."""

    text: str
    highlights: list[Highlight]
    before: bool = Field(description="Whether the document's text begins before the passage.")
    after: bool = Field(description="Whether it goes on after it.")


class Passage(BaseModel):
    """The passage by which a split document scores: its text's characters `start` to `end` - 1."""

    number: int = Field(description="From 1.")
    start: int
    end: int
    text: str


class FoundDocument(BaseModel):
    """A hit: `score` is w_d · `dense` + w_s · `sparse`."""

    rank: int
    id: str
    score: float
    dense: float
    sparse: float
    title: str
    text: str | None
    passage: Passage | None = Field(description="Null where documents are not split.")
    snippet: Snippet | None
    metadata: dict[str, Any]


class CountedValue(BaseModel):
    """A value of a facet, and how many documents have it."""

    value: str | bool | int | float | None
    documents: int


class Timing(BaseModel):
    """Milliseconds; encoding and searching are those of the batch that the query was in."""

    encode_ms: float
    search_ms: float
    total_ms: float


class Answer(BaseModel):
    """The best documents for a query, with the proof that no other is better."""

    query: str
    index: str
    generation: int
    k: int
    offset: int
    documents: int = Field(description="How many match.")
    proven: bool
    bound: float | None = Field(description="The most that any other document can score.")
    loss: float = Field(description="By how much that is above the last hit; 0 if proven.")
    depth: int
    hits: list[FoundDocument]
    facets: dict[str, list[CountedValue]]
    timing: Timing


class Answers(BaseModel):
    """The answers to several queries, in their order."""

    answers: list[Answer]
    timing: Timing


class StoredDocument(BaseModel):
    """A document of the index."""

    id: str
    title: str
    text: str
    metadata: dict[str, Any]


class Term(BaseModel):
    """A term of the query in the document."""

    term: str
    query_weight: float
    document_weight: float
    product: float
    borrowed: bool


class MissingTerm(BaseModel):
    """A term of the query that the document lacks."""

    term: str
    query_weight: float


class Explained(BaseModel):
    """A score taken apart: the products of `terms` add up to `sparse`."""

    query: str
    id: str
    rank: int
    documents: int
    k: int
    kth_score: float
    gap: float
    score: float
    dense_weight: float
    sparse_weight: float
    feedback: float
    dense: float
    sparse: float
    passage: Passage | None = Field(description="Null where documents are not split.")
    terms: list[Term]
    missing: list[MissingTerm]
    snippet: Snippet
    bound: float | None
    depth: int


class Facets(BaseModel):
    """How many documents match, and how many of them have each value."""

    documents: int
    facets: dict[str, list[CountedValue]]


class IndexName(BaseModel):
    """An index that is served."""

    name: str
    documents: int
    model: str
    default: bool


class IndexNames(BaseModel):
    """All indexes that are served."""

    indexes: list[IndexName]


class ChunkInfo(BaseModel):
    """How documents are split: the most tokens of a passage, and those of the one before."""

    tokens: int
    overlap: int


class SegmentInfo(BaseModel):
    """A segment of an index."""

    name: str
    documents: int
    deleted: int
    truncated: int | None
    passages: int | None
    hnsw: bool = Field(description="Whether it has a graph, for the mode fast.")
    bytes: int


class Info(BaseModel):
    """What an index holds, and by which encoder."""

    documents: int
    deleted: int
    truncated: int | None = Field(description="Read in part only; null if nobody knows.")
    passages: int | None = Field(description="Of all documents; null where they are not split.")
    chunk: ChunkInfo | None
    bytes: int
    generation: int
    created: str
    encoder: str
    seal: str
    dense_dim: int
    vocabulary_size: int
    format_version: int
    segments: list[SegmentInfo]


class Indexed(BaseModel):
    """What indexing has done."""

    indexed: int
    documents: int
    generation: int


class Deleted(BaseModel):
    """What deleting has done."""

    deleted: int
    documents: int
    generation: int


class Status(BaseModel):
    """That the server is there."""

    status: str


class ErrorBody(BaseModel):
    """A code for programs and one line for people."""

    code: str
    message: str


class Failure(BaseModel):
    """What every error looks like."""

    error: ErrorBody
