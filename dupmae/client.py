"""A client of `python cli.py serve`: what a `SearchEngine` here would say, asked over HTTP.

It needs the standard library only, and is safe to use from several threads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from itertools import islice
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from dupmae.errors import (
    AccessError,
    DataError,
    DupMAEError,
    ServerBusyError,
    ServerError,
    UsageError,
    WriterBusyError,
)
from dupmae.types import Document, Passage

Item = TypeVar("Item")

QUERIES = 64
"""Queries of one request."""
DOCUMENTS = 500
"""Documents of one request."""
LONGEST_WAIT = 10.0
"""Seconds that a server's Retry-After is heeded for."""

_ERRORS: dict[int, type[DupMAEError]] = {
    401: AccessError,
    403: AccessError,
    404: DataError,
    409: WriterBusyError,
    422: UsageError,
    429: ServerBusyError,
    503: ServerBusyError,
    504: ServerBusyError,
}
_TRY_AGAIN = frozenset({429, 503})
"""Nothing of such a request was done."""


@dataclass(frozen=True, slots=True)
class FoundDocument:
    """A hit: `score` = w_d · `dense` + w_s · `sparse`; `snippet` is what carries most of it.

    Of a split document, `passage` is the one that scores so, and `passage_text` its text.
    """

    rank: int
    doc_id: str
    score: float
    dense: float
    sparse: float
    title: str
    snippet: str
    metadata: Mapping[str, Any]
    passage: Passage | None = None
    passage_text: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one query, of `documents` that match; `bound` is None if all were scored."""

    query: str
    hits: tuple[FoundDocument, ...]
    documents: int
    proven: bool
    bound: float | None
    depth: int
    generation: int
    facets: Mapping[str, Sequence[Mapping[str, Any]]]


class DupMAEClient:
    """Asks one server.

    Args:
        url: such as `http://127.0.0.1:8080`.
        key: an API key, if the server wants one.
        index: the name of an index; the server's first one if not given.
        timeout: seconds to wait for an answer.
        retries: how often a request is sent again that a busy server refuses, after as long as
            the server says.

    Its methods raise AccessError (key), UsageError (a value is wrong), DataError (no such
    document), WriterBusyError (another process writes), ServerBusyError (too much to do) or
    ServerError (all else).
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        index: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
    ) -> None:
        if urlsplit(url).scheme not in {"http", "https"}:
            raise UsageError(f"expected a URL such as http://127.0.0.1:8080, found {url!r}")
        self._url = url.rstrip("/")
        self._key = key
        self._index = index
        self._timeout = timeout
        self._retries = retries
        self._opener = build_opener(_NoRedirect)  # which could carry the key elsewhere

    def search(self, query: str, k: int = 10, **options: Any) -> Answer:
        """Return the k best documents for a query.

        Args:
            query: any text that is not empty.
            k: hits.
            options: `offset`, `where`, `facets`, `dense_weight`, `sparse_weight`, `feedback`.
        """
        return _answer(self._send("POST", "/search", {"query": query, "k": k, **options}))

    def search_many(self, queries: Sequence[str], k: int = 10, **options: Any) -> list[Answer]:
        """Return an answer for each query, as `search`."""
        answers = []
        for some in _parts(queries, QUERIES):
            found = self._send("POST", "/search", {"queries": some, "k": k, **options})
            answers += [_answer(each) for each in found["answers"]]
        return answers

    def get(self, doc_id: str) -> Document:
        """Return a document."""
        found = self._send("GET", _place(doc_id))
        return Document(found["id"], found["text"], found["title"], found["metadata"])

    def explain(self, query: str, doc_id: str, k: int = 10, **options: Any) -> dict[str, Any]:
        """Return how a query scores a document, as `python cli.py explain --json` writes it."""
        asked = {"query": query, "id": doc_id, "k": k, **options}
        explained: dict[str, Any] = self._send("POST", "/explain", asked)
        return explained

    def index(self, documents: Iterable[Document]) -> int:
        """Index documents, 500 at a time; they replace those of the same ids.

        Returns:
            How many documents there are then.
        """
        total = 0
        for some in _parts(documents, DOCUMENTS):
            lines = [
                {
                    "_id": document.doc_id,
                    "text": document.text,
                    "title": document.title,
                    "metadata": dict(document.metadata),
                }
                for document in some
            ]
            total = self._send("POST", "/documents", {"documents": lines})["documents"]
        return total

    def delete(self, doc_ids: Sequence[str] | None = None, *, where: str | None = None) -> int:
        """Delete documents by ids, all or none, or those that match a filter; return how many."""
        asked = {"ids": None if doc_ids is None else list(doc_ids), "where": where}
        deleted: int = self._send("POST", "/delete", asked)["deleted"]
        return deleted

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request, again if the server is busy, and return what it answers."""
        query = "" if self._index is None else "?" + urlencode({"index": self._index})
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode("ascii")
        request = Request(self._url + path + query, data, headers, method=method)
        for attempt in range(self._retries + 1):
            try:
                with self._opener.open(request, timeout=self._timeout) as response:
                    return json.load(response)
            except HTTPError as error:
                with error:
                    if error.code not in _TRY_AGAIN or attempt == self._retries:
                        raise _error(error) from None
                    time.sleep(_pause(error.headers))
            except (OSError, ValueError) as error:
                raise ServerError(f"no answer from {self._url}: {error}") from error
        raise AssertionError("the last attempt returns or raises")


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Refuse: what a server of ours answers is never elsewhere."""


def _answer(found: Mapping[str, Any]) -> Answer:
    hits = tuple(
        FoundDocument(
            rank=hit["rank"],
            doc_id=hit["id"],
            score=hit["score"],
            dense=hit["dense"],
            sparse=hit["sparse"],
            title=hit["title"],
            snippet="" if hit["snippet"] is None else hit["snippet"]["text"],
            metadata=hit["metadata"],
            passage=_passage(hit["passage"]),
            passage_text="" if hit["passage"] is None else hit["passage"]["text"],
        )
        for hit in found["hits"]
    )
    names = ("query", "documents", "proven", "bound", "depth", "generation", "facets")
    return Answer(hits=hits, **{name: found[name] for name in names})


def _passage(found: Mapping[str, Any] | None) -> Passage | None:
    return None if found is None else Passage(found["number"], found["start"], found["end"])


def _error(error: HTTPError) -> DupMAEError:
    """Return the error that an answer means."""
    try:
        message = str(json.load(error)["error"]["message"])
    except (OSError, ValueError, KeyError, TypeError):  # not from a server of ours
        message = f"HTTP status {error.code}"
    return _ERRORS.get(error.code, ServerError)(message)


def _pause(headers: Message) -> float:
    """Return how long to wait before a request is sent again."""
    said = headers.get("Retry-After", "")
    return min(float(said) if said.isdecimal() else 1.0, LONGEST_WAIT)


def _place(doc_id: str) -> str:
    return "/documents/" + quote(doc_id, safe="", errors="surrogatepass")


def _parts(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
