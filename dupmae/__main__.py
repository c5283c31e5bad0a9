"""`python -m dupmae` is `dupmae`."""

from dupmae.cli import main

main(prog_name="dupmae")
