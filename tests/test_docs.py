"""The pages in `docs/` tell the truth: what they show runs and gives what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dupmae.encoder import Encoder
from dupmae.engine import SearchEngine, build_index
from dupmae.types import Document

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@contextmanager
def closing_engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the engines that an example leaves open, as the end of a program would."""
    opened: list[SearchEngine] = []
    open_engine = SearchEngine.open

    def remembering(*arguments: object, **options: object) -> SearchEngine:
        opened.append(open_engine(*arguments, **options))  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr(SearchEngine, "open", remembering)
    yield
    for engine in opened:
        engine.close()


@pytest.mark.parametrize(
    ("place", "library"), [(0, "langchain_core"), (1, "llama_index.core"), (2, "haystack")]
)
def test_the_examples_of_the_retrievers_run(
    place: int,
    library: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    monkeypatch.chdir(tmp_path)
    where = {"year": 2020}
    document = Document("bone", "Calcium and vitamin D keep bones strong.", "Bones", where)
    build_index([document], Encoder.load(threads=1), "dupmae.index")
    code = blocks("integrations.md", "python")[place]
    with closing_engines(monkeypatch):
        exec(compile(code, "integrations.md", "exec"), {})
    assert capsys.readouterr().out.startswith("bone")
