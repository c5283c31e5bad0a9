"""Requests made of the OpenAPI schema, which knows every answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import serving, write_index
from starlette.types import Receive, Scope, Send

CHECKS = [
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


def test_the_schema_knows_the_answer_to_any_request_that_it_allows(
    api: schemathesis.BaseSchema,
) -> None:
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) == 12

    def validate(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    for operation in operations:
        rounds = settings(max_examples=8, suppress_health_check=list(HealthCheck))
        rounds(
            given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))(validate)
        )()
