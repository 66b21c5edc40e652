"""`transferbench doctor`: what this machine has of what the other commands need."""

from __future__ import annotations

import json
from pathlib import Path

import click

from transferbench.cli import options
from transferbench.cli.output import say


@click.command("doctor", cls=options.Command, short_help="What is installed, devices, data and weights.")
@options.data_dir
@options.model_dir
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def command(data_dir: Path | None, model_dir: Path | None, as_json: bool) -> None:
    """Report versions, optional extras, devices, and the data sets and weights that are found.

    The exit status is 0 whatever is missing: what has to be repaired is in the last lines, and in `needed` of --json.
    """
    from transferbench.workflows import doctor

    found = doctor.examine(data_dir, model_dir)
    if as_json:
        say(json.dumps(found.to_dict(), indent=1))
        return
    for line in found.lines:
        say(line)
