"""`transferbench card`: show a model's card."""

from __future__ import annotations

from pathlib import Path

import click

from transferbench.cli import options
from transferbench.cli.output import say


@click.command("card", cls=options.Command, short_help="Show the card of a model.")
@click.argument("model", metavar="MODEL")
def command(model: str) -> None:
    """Show the card of MODEL: a model of `list models`, a folder or a card."""
    from transferbench.models import cards, catalogue

    path = Path(model)
    if path.exists():
        card = cards.read(path / "README.md" if path.is_dir() else path)
    else:
        found = catalogue.card(model)
        if found is None:
            from transferbench.models import victims

            found = victims.card(model)
        card = found
    say(cards.write(card).removesuffix("\n"))
