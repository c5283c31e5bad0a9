"""Writes `reference/cli.md` of the click commands: `python docs/make_reference.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from dupmae.cli import main

PAGE = Path(__file__).parent / "reference" / "cli.md"

HEAD = """\
# Commands

Made from the commands by `python docs/make_reference.py`; what is said here is what `--help`
says. `dupmae` is the same as `python cli.py`. Exit codes: 0 ok, 1 failed, 2 usage, 3 index missing
or damaged, 4 the index is another encoder's, 5 a measure fell (`eval --gate`), 130 interrupted.
"""


def reference() -> str:
    """Return the page."""
    sections = [HEAD]
    root = click.Context(main, info_name="dupmae")
    for name, command in main.commands.items():
        context = click.Context(command, info_name=name, parent=root)
        sections.append("\n".join(_section(command, context)))
    return "\n".join(sections)


def _section(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"## {context.info_name}\n\n`{context.command_path} {usage}`\n"
    for paragraph in (command.help or "").split("\n\n"):
        yield " ".join(paragraph.split()) + "\n"
    yield "| option | |\n| --- | --- |"
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            option, what = (_cell(part) for part in record)
            yield f"| `{option}` | {what} |"
    yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
