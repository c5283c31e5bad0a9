"""`completion`: what a shell needs to complete the console script `dupmae` with the tab key."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "dupmae"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes the commands and options of `dupmae`."""
    completer = get_completion_class(shell)
    assert completer is not None  # click knows all three
    script = completer(context.find_root().command, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE")
    click.echo(script.source())
