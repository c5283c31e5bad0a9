"""`serve`: indexes over HTTP, with a page to search them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dupmae.commands.extras import require_extra
from dupmae.commands.options import (
    DEFAULT_INDEX,
    load_encoder,
    open_engine,
    threads_option,
    weight_options,
)
from dupmae.errors import UsageError

if TYPE_CHECKING:
    from dupmae.commands.options import AnyEncoder
    from dupmae.engine import SearchEngine
    from dupmae.server.settings import ServerSettings


@click.command()
@click.option(
    "--index",
    "given",
    multiple=True,
    metavar="[NAME=]FOLDER",
    help=f"An index folder; may be given several times, the first is the default one.  "
    f"[default: {DEFAULT_INDEX}]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to serve at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option("--writable", is_flag=True, help="Let documents be indexed and deleted.")
@click.option(
    "--api-keys",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Lines `read KEY` and `write KEY`.  [default: the lines of $DUPMAE_API_KEYS]",
)
@click.option("--cors", multiple=True, metavar="ORIGIN", help="Let pages of this origin ask.")
@click.option(
    "--allow-host", multiple=True, metavar="NAME", help="Answer to this name, and no others."
)
@click.option("--max-k", type=click.IntRange(1), help="Most hits of an answer.  [default: 1000]")
@click.option(
    "--time-limit", type=click.FloatRange(1), help="Seconds a request may take.  [default: 30]"
)
@click.option("--queue", type=click.IntRange(1), help="Queries that may wait.  [default: 256]")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="FOLDER",
    help="A model folder, or a name on the Hugging Face hub; several, if indexes were made by "
    "several.  [default: the shipped dupmae-mini]",
)
@weight_options
@threads_option
def serve(
    given: tuple[str, ...],
    host: str,
    port: int,
    api_keys: Path | None,
    models: tuple[str, ...],
    threads: int | None,
    **options: Any,
) -> None:
    """Serve indexes over HTTP, and a page to search them, until ctrl-C or SIGTERM."""
    require_extra("serve", "serve")
    from dupmae.engine import read_manifest
    from dupmae.server.app import create_app
    from dupmae.server.indexes import open_indexes, parse_folders
    from dupmae.server.keys import ApiKeys
    from dupmae.server.run import is_loopback, listen, run

    weights = {name: options.pop(name) for name in ("dense_weight", "sparse_weight", "feedback")}
    settings = _settings(is_loopback(host), **options)
    keys = ApiKeys.load(api_keys)
    if not keys and not is_loopback(host):
        raise UsageError(
            f"other machines can reach {host}, so API keys are needed: give --api-keys FILE with "
            "lines such as `read KEY`, or serve at 127.0.0.1"
        )
    folders = parse_folders(given or [str(DEFAULT_INDEX)])
    for folder in folders.values():
        read_manifest(folder)  # a missing index is said before an encoder is loaded
    with listen(host, port) as listening:
        encoders = [load_encoder(each, threads) for each in models or (None,)]
        indexes = open_indexes(folders, lambda folder: _open(folder, encoders, weights))
        app = create_app(indexes, settings, keys)
        address = f"[{host}]" if ":" in host else host
        taken = listening.getsockname()[1]
        click.echo(f"serving {', '.join(folders)} at http://{address}:{taken}", err=True)
        run(app, listening, settings)


def _open(
    folder: Path, encoders: Sequence[AnyEncoder], weights: Mapping[str, float | None]
) -> SearchEngine:
    """Open an index with that of the encoders which made it; the first one says it if none did."""
    from dupmae.engine import read_manifest

    seal = read_manifest(folder).encoder_seal
    encoder = next((each for each in encoders if each.seal == seal), encoders[0])
    return open_engine(folder, encoder, **weights)


def _settings(
    loopback: bool, *, cors: tuple[str, ...], allow_host: tuple[str, ...], **limits: Any
) -> ServerSettings:
    """Return the settings that options give; on this machine only its own names are answered to."""
    from dupmae.server.guard import LOOPBACK_HOSTS
    from dupmae.server.settings import ServerSettings

    hosts = allow_host + LOOPBACK_HOSTS if loopback or allow_host else ()
    given = {name: value for name, value in limits.items() if value is not None}
    return ServerSettings(cors=cors, hosts=hosts, **given)
