"""`transferbench publish`: a finished run becomes a committed board."""

from __future__ import annotations

from pathlib import Path

import click

from transferbench.cli import options
from transferbench.cli.output import say


@click.command("publish", cls=options.Command, short_help="Copy a finished run to leaderboards/ and model_cards/.")
@options.run_folder
def command(dir: Path) -> None:
    """Copy the verified run in DIR to leaderboards/<suite>/ and model_cards/<suite>/ of the current folder."""
    from transferbench.workflows.publish import CARDS, publish

    board = publish(dir, Path())
    say(f"published to {board}/ and {Path(CARDS) / board.name}/")
