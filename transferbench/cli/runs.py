"""`transferbench runs`: the status of a run."""

from __future__ import annotations

from pathlib import Path

import click

from transferbench.cli import options
from transferbench.cli.output import say


@click.command("runs", cls=options.Command, short_help="What of a run is done, under way, failed or missing.")
@options.run_folder
@click.option("--verdicts", type=options.FOLDER, metavar="FILE", help="Also write every example's verdicts as CSV.")
def command(dir: Path, verdicts: Path | None) -> None:
    """Print which jobs of the run in DIR are done, under way, failed or missing."""
    from transferbench.store.reader import Reader
    from transferbench.workflows import run_status

    reader = Reader(dir)
    say("\n".join(run_status.describe(reader)))
    if verdicts is not None:
        say(f"{verdicts}: {run_status.write_verdicts(reader, verdicts)} verdicts")
