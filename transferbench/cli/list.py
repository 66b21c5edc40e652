"""`transferbench list`: what there is, one line each. Imports neither torch nor pandas."""

from __future__ import annotations

from pathlib import Path

import click

from transferbench.cli import options
from transferbench.cli.output import say

KINDS = ("models", "networks", "datasets", "methods", "attacks", "suites")


@click.command("list", cls=options.Command, short_help="What there is, one line each.")
@click.argument("kind", metavar="KIND", type=click.Choice(KINDS))
@click.option("--data-dir", type=options.FOLDER, metavar="DIR", help="datasets: where to look for their files.")
def command(kind: str, data_dir: Path | None) -> None:
    """Print what there is of KIND (models, networks, datasets, methods, attacks or suites), one line each."""
    from transferbench.workflows import catalogue

    lines = catalogue.lines(kind, data_dir)
    width = max(map(len, lines), default=0)
    for id, description in lines.items():
        say(f"{id:<{width}}  {description}")
