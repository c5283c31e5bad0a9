"""The page: the files in the package's folder `page/`, read once; a request opens no path."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from fastapi import APIRouter, Request, Response

from dupmae.server.failures import RefusedError

PAGE_FOLDER = Path(__file__).with_name("page")
_INDEX = "index.html"

router = APIRouter(include_in_schema=False)


def read_page(folder: Path) -> dict[str, Response]:
    """Return an answer for each file of a folder."""
    answers = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_file():
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            answers[path.name] = Response(
                path.read_bytes(), media_type=kind, headers={"Cache-Control": "no-cache"}
            )
    return answers


@router.get("/")
async def index(request: Request) -> Response:
    """Give the page."""
    return _file(request, _INDEX)


@router.get("/assets/{name}")
async def asset(name: str, request: Request) -> Response:
    """Give a file that the page uses."""
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    answers: dict[str, Response] = request.app.state.page
    if name not in answers:
        raise RefusedError(404, "not_found", "Not Found")
    return answers[name]
