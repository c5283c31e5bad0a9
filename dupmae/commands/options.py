"""Options that several commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dupmae.commands.extras import missing_modules, require_extra
from dupmae.errors import TorchNeededError, UsageError

if TYPE_CHECKING:
    from dupmae.device_encoder import DeviceEncoder
    from dupmae.encoder import Encoder
    from dupmae.engine import Filter, SearchEngine
    from dupmae.torch_encoder import Precision, TorchEncoder

    AnyEncoder = Encoder | TorchEncoder

DEFAULT_INDEX = Path("dupmae.index")
"""Where the bare `index` writes and the bare `search` reads."""

index_option = click.option(
    "--index",
    "index_folder",
    type=click.Path(path_type=Path),
    default=DEFAULT_INDEX,
    show_default=True,
    help="The index folder.",
)
model_option = click.option(
    "--model",
    metavar="FOLDER",
    help="A model folder, or a name on the Hugging Face hub.  [default: the shipped dupmae-mini]",
)
where_option = click.option(
    "--where",
    metavar="FILTER",
    help="Only documents whose metadata match, such as 'year >= 2019 and journal = \"Nature\"'.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="CPU threads of the encoder.  [default: all]"
)


def weight_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --dense-weight, --sparse-weight and --feedback."""
    for name, what in (
        ("--feedback", "How far the query is moved towards its best documents; 0: not at all."),
        ("--sparse-weight", "w_s, of the sparse part of the score."),
        ("--dense-weight", "w_d, of the dense part of the score."),
    ):
        command = click.option(
            name, type=click.FloatRange(0), help=f"{what}  [default: the model's]"
        )(command)
    return command


def open_engine(folder: Path, encoder: AnyEncoder, **weights: float | None) -> SearchEngine:
    """Open an index with the weights given, or where they are None with the model's."""
    from dupmae.engine import SearchEngine

    chosen = {
        name: getattr(encoder.heads, name) if weight is None else weight
        for name, weight in weights.items()
    }
    return SearchEngine.open(folder, encoder, **chosen)


def open_index(
    index_folder: Path, *, model: str | None, threads: int | None, **weights: float | None
) -> SearchEngine:
    """Load the encoder and open an index; a missing index is said before the encoder is loaded."""
    from dupmae.engine import read_manifest

    read_manifest(index_folder)
    return open_engine(index_folder, load_encoder(model, threads), **weights)


def read_filter(where: str | None) -> Filter | None:
    """Read a filter, so that a wrong one is said before anything is loaded."""
    from dupmae.engine import parse_filter

    return None if where is None else parse_filter(where)


def load_encoder(model: str | None, threads: int | None = None) -> AnyEncoder:
    """Load the named model, or the shipped one; with torch only if there is no other way."""
    from dupmae.encoder import Encoder

    try:
        return Encoder.load(model, threads=threads)
    except TorchNeededError:
        if missing_modules("train"):
            raise
    from dupmae.torch_encoder import TorchEncoder

    return TorchEncoder.load(model, threads=threads)


def load_device_encoder(
    model: str | None, devices: str, precision: Precision | None, threads: int | None = None
) -> DeviceEncoder:
    """Load the named model, or the shipped one, on devices that are named with commas."""
    require_extra("train", "--device")
    from dupmae.device_encoder import DeviceEncoder

    names = [name for name in devices.split(",") if name]
    if not names:
        raise UsageError("--device names no device; give one such as cuda or cuda:0,cuda:1")
    queries = load_encoder(model, threads)
    return DeviceEncoder(queries, model, names, precision=precision)
