"""`adapt`: a model, taken to the user's own corpus."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

import click

from dupmae.commands.extras import require_extra
from dupmae.commands.options import model_option
from dupmae.commands.train import config_option, set_option


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@model_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/adapt"),
    show_default=True,
    help="The folder of all that is made; an adaptation that was stopped goes on there.",
)
@config_option
@set_option
def adapt(
    corpus: Path, model: str | None, out: Path, config: Path | None, pairs: tuple[str, ...]
) -> None:
    """Adapt a model to CORPUS, a JSON-lines file with "_id", "text" and perhaps "title".

    It is pre-trained and fine-tuned on these documents alone; queries and judgements are not
    needed. The folder of the new model, and how well the old and the new one find documents that
    were held out, go to stdout as one line of JSON.
    """
    require_extra("train", "adapt")
    from dupmae.adapt import AdaptSettings
    from dupmae.adapt import adapt as run
    from dupmae.config import load_config, parse_overrides
    from dupmae.engine import read_corpus

    settings = load_config(config, AdaptSettings, parse_overrides(pairs))
    # Half an hour is long: what was measured before it is said before it.
    logging.getLogger("dupmae.adapt").setLevel(logging.INFO)
    adapted = run(list(read_corpus(corpus)), model, out, settings, corpus=corpus.name)
    click.echo(json.dumps(asdict(adapted) | {"model": str(adapted.model)}))
