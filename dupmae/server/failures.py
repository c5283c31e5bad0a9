"""Errors as answers: a status, a code for programs and one line for people."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from dupmae.errors import DataError, DupMAEError, UsageError, WriterBusyError

logger = logging.getLogger(__name__)

LONGEST_MESSAGE = 1000
"""Characters; a message may quote a request."""

_CODES = {400: "bad_request", 404: "not_found", 405: "bad_method"}


class RefusedError(Exception):
    """A request that is not done."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


def busy() -> RefusedError:
    """Return the refusal of a request for which there is no room."""
    return RefusedError(503, "busy", "the server has too much to do; try again soon", retry_after=1)


def error_response(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an error in the one form that all have."""
    line = " ".join(message.encode("utf-8", "replace").decode().split())
    shown = line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]} …"
    content = {"error": {"code": code, "message": shown}}
    return JSONResponse(content, status, headers=dict(headers or {}))


def refused(refusal: RefusedError) -> JSONResponse:
    """Return the answer that a refusal is."""
    return error_response(refusal.status, refusal.code, str(refusal), refusal.headers)


def add_handlers(app: FastAPI) -> None:
    """Make every error of an app an answer in this form."""
    handlers: dict[type[Exception], Callable[[Any], JSONResponse]] = {
        RefusedError: refused,
        RequestValidationError: lambda error: error_response(
            422, "bad_value", _first_problem(error.errors())
        ),
        HTTPException: lambda error: error_response(
            error.status_code, _CODES.get(error.status_code, "refused"), str(error.detail)
        ),
        DupMAEError: _of_engine,
        Exception: lambda _: error_response(500, "failed", "the server failed; its log says why"),
    }
    for kind, answer in handlers.items():
        app.add_exception_handler(kind, _handler(answer))


def _handler(
    answer: Callable[[Any], JSONResponse],
) -> Callable[[Request, Exception], JSONResponse]:
    def handle(_: Request, error: Exception) -> JSONResponse:
        return answer(error)

    return handle


def _of_engine(error: DupMAEError) -> JSONResponse:
    """Say what the engine said where the request is at fault; else only that it failed."""
    if isinstance(error, WriterBusyError):
        message = "another process writes to this index; try again when it is done"
        return error_response(409, "writer_busy", message, {"Retry-After": "5"})
    if isinstance(error, (UsageError, DataError)):
        return error_response(422, "bad_value", str(error))
    logger.error("%s", error)
    return error_response(500, "failed", "the index could not be used; the server's log says why")


def _first_problem(errors: Sequence[Any]) -> str:
    """Return one line on the first thing that is wrong with a request."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"][1:])  # without "body" or "query"
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first['ctx']['error']}"
    return f"{place}: {message}" if place else message
