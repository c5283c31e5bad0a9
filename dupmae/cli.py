"""The command line: the group, and how errors become one line and an exit code.

Exit codes: 0 ok, 1 failed, 2 usage, 3 index missing or damaged, 4 encoder mismatch,
5 a measure fell (`eval --gate`), 130 interrupted. Answers go to stdout, all else to stderr.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click

from dupmae import __version__
from dupmae.commands.adapt import adapt
from dupmae.commands.completion import completion
from dupmae.commands.convert import convert
from dupmae.commands.doctor import doctor
from dupmae.commands.evaluate import eval_command
from dupmae.commands.explain import explain
from dupmae.commands.export import export
from dupmae.commands.index import index
from dupmae.commands.interrupts import careful_interrupts
from dupmae.commands.maintain import compact, delete, info, restore, snapshot, verify
from dupmae.commands.mcp import mcp
from dupmae.commands.search import search
from dupmae.commands.serve import serve
from dupmae.commands.train import finetune, pretrain
from dupmae.errors import DupMAEError


class _Group(click.Group):
    """A group whose commands end with one line and a code where the user can cure the error."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with careful_interrupts():
                return super().invoke(ctx)
        except DupMAEError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dupmae")
@click.option("-v", "--verbose", is_flag=True, help="Say more of what is done, on stderr.")
def main(verbose: bool) -> None:
    """Hybrid search that returns exactly what the model says."""
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    # transformers reports on stderr what our loader says better.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


for command in (
    pretrain,
    finetune,
    adapt,
    index,
    export,
    convert,
    search,
    explain,
    serve,
    mcp,
    eval_command,
    info,
    verify,
    doctor,
    delete,
    compact,
    snapshot,
    restore,
    completion,
):
    main.add_command(command)
