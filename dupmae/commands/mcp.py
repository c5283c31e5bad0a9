"""`mcp`: an index as tools for an agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dupmae.commands.extras import require_extra
from dupmae.commands.options import (
    index_option,
    model_option,
    open_index,
    threads_option,
    weight_options,
)
from dupmae.errors import UsageError

LOOPBACK = "127.0.0.1"
"""The server knows no users, so that it is open to this machine alone."""

PORT = 8765


@click.command()
@click.option(
    "--http", is_flag=True, help=f"Streamable HTTP on {LOOPBACK} instead of stdin and stdout."
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help=f"With --http: the port.  [default: {PORT}]"
)
@index_option
@model_option
@weight_options
@threads_option
def mcp(http: bool, port: int | None, index_folder: Path, **encoding: Any) -> None:
    """Serve the index to an agent by the Model Context Protocol: search, get_document, explain."""
    if port is not None and not http:
        raise UsageError("--port goes with --http")
    require_extra("mcp", "mcp")
    with open_index(index_folder, **encoding) as engine:
        from dupmae.integrations.mcp_server import make_server

        server = make_server(engine)
        if http:
            port = port or PORT
            click.echo(f"{len(engine):,} documents at http://{LOOPBACK}:{port}/mcp", err=True)
            server.run(
                "streamable-http", host=LOOPBACK, port=port, stateless_http=True, json_response=True
            )
        else:
            server.run("stdio")
