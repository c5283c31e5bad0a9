"""Requests made of the OpenAPI schema, which knows every answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from serving import serving, write_index
from starlette.types import Receive, Scope, Send

EXAMPLES = 8
"""Requests of a kind to each operation."""

Check = Callable[..., Any]
CHECKS: list[Check] = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    folder = write_index(tmp_path_factory.mktemp("fuzzed") / "demo")
    with serving(folder, writable=True) as client:

        async def running(scope: Scope, receive: Receive, send: Send) -> None:
            """Hand on requests, but not the start and end that schemathesis asks for too."""
            if scope["type"] != "lifespan":
                await client.app(scope, receive, send)
                return
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})

        yield schemathesis.openapi.from_asgi("/openapi.json", running)


@pytest.fixture(scope="module")
def operations(api: schemathesis.BaseSchema) -> list[schemathesis.APIOperation]:
    return [found.ok() for found in api.get_all_operations()]


def ask(
    operations: Sequence[schemathesis.APIOperation], mode: GenerationMode, checks: Sequence[Check]
) -> None:
    """Send some requests of a kind to each operation, and check what is answered."""

    def validate(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=list(checks))

    rounds = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    for operation in operations:
        rounds(given(case=operation.as_strategy(generation_mode=mode))(validate))()


def test_the_schema_knows_the_answer_to_any_request_that_it_allows(
    operations: list[schemathesis.APIOperation],
) -> None:
    assert len(operations) == 12
    ask(operations, GenerationMode.POSITIVE, CHECKS)


def test_the_schema_knows_the_refusal_of_any_request_that_it_forbids(
    operations: list[schemathesis.APIOperation],
) -> None:
    # What takes neither parameters nor a body forbids no request, so none can be made.
    taking = [each for each in operations if each.body or list(each.iter_parameters())]
    assert {each.path for each in operations if each not in taking} == {
        "/indexes", "/health", "/ready", "/metrics",
    }  # fmt: skip
    ask(taking, GenerationMode.NEGATIVE, [*CHECKS, negative_data_rejection])
