"""`pretrain` and `finetune`: one config each, from a TOML file and a few flags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from dupmae.commands.extras import require_extra

DEMO_RUN: dict[str, object] = {
    "trainer.steps": 60,
    "trainer.batch_size": 16,
    "trainer.learning_rate": 5e-5,
    "trainer.checkpoint_every": 20,
    "trainer.probe_every": 30,
    "trainer.log_every": 5,
    "corpus.max_length": 128,
}
"""What the bare `pretrain` does: some minutes on a laptop, once over a good part of the demo."""

config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="Settings in TOML; recipes/ has examples."
)
start_option = click.option(
    "--start", metavar="FOLDER", help="The model to start from: a folder, or a name on the hub."
)
set_option = click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting, such as --set trainer.learning_rate=1e-4.",
)
steps_option = click.option("--steps", type=click.IntRange(1), help="Optimizer steps in all.")


def _out_option(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--out",
        type=click.Path(path_type=Path),
        default=Path(default),
        show_default=True,
        help="The run's folder; a run that was stopped goes on from its checkpoint there.",
    )


@click.command()
@click.argument("corpus", nargs=-1, type=click.Path(path_type=Path))
@config_option
@start_option
@_out_option("runs/pretrain")
@steps_option
@set_option
def pretrain(
    corpus: tuple[Path, ...],
    config: Path | None,
    start: str | None,
    out: Path,
    steps: int | None,
    pairs: tuple[str, ...],
) -> None:
    """Pre-train an encoder with DupMAE on CORPUS files (JSON lines with "text", or plain text).

    Without a corpus it trains the shipped model on the built-in demo corpus, and says so.
    """
    require_extra("train", "pretrain")
    from dupmae.config import load_config, parse_overrides
    from dupmae.pretrain import PretrainConfig
    from dupmae.pretrain import pretrain as run

    overrides: dict[str, object] = {
        "start.model": start,
        "corpus.files": [str(path) for path in corpus] or None,
        "trainer.steps": steps,
    }
    given = {name: value for name, value in overrides.items() if value is not None}
    settings = load_config(config, PretrainConfig, given | parse_overrides(pairs))
    texts = []
    if not settings.corpus.files:
        from dupmae.eval import demo_documents

        texts = [document.content for document in demo_documents()]
        click.echo(
            f"no corpus given: pre-training on the built-in demo corpus, {len(texts):,} texts of "
            "Python's own documentation",
            err=True,
        )
        if config is None:
            settings = load_config(None, PretrainConfig, DEMO_RUN | given | parse_overrides(pairs))
    run(settings, out, texts=texts)
    click.echo(f"the model is in {out / 'model'}", err=True)


@click.command()
@click.argument("rows", nargs=-1, type=click.Path(path_type=Path))
@config_option
@start_option
@click.option("--teacher", metavar="FOLDER", help="A mean-pooled sentence encoder to learn from.")
@_out_option("runs/finetune")
@steps_option
@set_option
def finetune(
    rows: tuple[Path, ...],
    config: Path | None,
    start: str | None,
    teacher: str | None,
    out: Path,
    steps: int | None,
    pairs: tuple[str, ...],
) -> None:
    """Fine-tune an encoder on ROWS files: JSON lines with "query" and "text".

    A line may also have "title", "negatives" (texts) and a teacher's "scores" of the text and its
    negatives.
    """
    require_extra("train", "finetune")
    from dupmae.config import load_config, parse_overrides
    from dupmae.finetune import FinetuneConfig
    from dupmae.finetune import finetune as run

    overrides: dict[str, object] = {
        "start.model": start,
        "start.teacher": teacher,
        "data.files": [str(path) for path in rows] or None,
        "trainer.steps": steps,
    }
    run(load_config(config, FinetuneConfig, overrides | parse_overrides(pairs)), out)
    click.echo(f"the model is in {out / 'model'}", err=True)
