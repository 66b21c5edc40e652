"""`transferbench inspect`: what a file of weights is."""

from __future__ import annotations

from pathlib import Path

import click

from transferbench.cli import options
from transferbench.cli.output import say


@click.command("inspect", cls=options.Command, short_help="What a file of weights is, and how to evaluate it.")
@click.argument("file", type=options.FOLDER, metavar="FILE")
def command(file: Path) -> None:
    """Show what is in FILE, which networks of `list networks` it fits, and the command that evaluates it."""
    from transferbench.workflows import inspect_checkpoint

    for line in inspect_checkpoint.inspect(file).lines:
        say(line)
