"""An app over a small index, asked in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes import FakeEncoder
from starlette.testclient import TestClient

from dupmae.engine import SearchEngine, build_index
from dupmae.server.app import create_app
from dupmae.server.indexes import ServedIndex
from dupmae.server.keys import ApiKeys
from dupmae.server.settings import ServerSettings
from dupmae.types import Document

DOCUMENTS = [
    Document("sun", "skin makes vitamin d in sunlight", "Sun", {"year": 2019, "kind": "note"}),
    Document("bone", "calcium and vitamin d keep bones strong", "Bones", {"year": 2020}),
    Document("a/b", "threads wait until a lock is free", "", {"kind": "note", "tags": ["x", "y"]}),
    Document("<b>", "<script>alert('vitamin')</script>", "<i>", {"html": "<img src=x>"}),
]
READ, WRITE = "read-key-of-the-tests", "write-key-of-the-tests"


class WordEncoder(FakeEncoder):
    """A fake whose terms are called by the words that they stand for."""

    WORDS = sorted({word for document in DOCUMENTS for word in document.content.lower().split()})

    def term_texts(self, terms: Sequence[int]) -> list[str]:
        names = {self.term(word): word for word in self.WORDS}
        return [names.get(term, f"term{term}") for term in terms]


def write_index(folder: Path, encoder: FakeEncoder | None = None) -> Path:
    """Index the documents."""
    build_index(DOCUMENTS, encoder or WordEncoder(), folder)
    return folder


@contextmanager
def serving(
    *folders: Path,
    encoder: FakeEncoder | None = None,
    keys: ApiKeys | None = None,
    page_folder: Path | None = None,
    **settings: Any,
) -> Iterator[TestClient]:
    """Serve index folders under their names, as if at 127.0.0.1."""
    chosen = encoder or WordEncoder()
    indexes = [
        ServedIndex(folder.name, folder, SearchEngine.open(folder, chosen, feedback=0.3))
        for folder in folders
    ]
    given = {} if page_folder is None else {"page_folder": page_folder}
    app = create_app(indexes, ServerSettings(**settings), keys or ApiKeys(()), **given)
    with TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False) as client:
        yield client


def problem(response: Any) -> tuple[int, str, str]:
    """Return status, code and message of an error, which is one line and nothing else."""
    (error,) = response.json().values()
    assert error.keys() == {"code", "message"}
    assert "\n" not in error["message"]
    return response.status_code, error["code"], error["message"]
