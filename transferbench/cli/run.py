"""`transferbench run`: a suite from its file to its leaderboard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from transferbench.base.errors import InputError
from transferbench.base.settings import EngineOptions, RunSettings
from transferbench.cli import options
from transferbench.cli.output import say


@click.command(
    "run", cls=options.Command, short_help="Run a suite: train, craft, attack, judge, write the leaderboard."
)
@click.argument("suite", metavar="SUITE")
@click.option(
    "--out",
    type=options.FOLDER,
    metavar="DIR",
    help="The run's folder (default: runs/<suite>, with --full runs/<suite>-full).",
)
@click.option(
    "--seeds", type=options.SEEDS, metavar="0,1,2", help="Seeds of the trainings and attacks (default: the suite's)."
)
@click.option("--full", is_flag=True, help="The suite's full protocol (10 x 100).")
@click.option("--n", type=int, metavar="N", help="Attack the first N test examples (default: the suite's).")
@click.option(
    "--dataset", "datasets", type=options.REPLACED, multiple=True, metavar="NAME=OTHER",
    help="Read another data set where the suite names this one: cifar10=cifar10-jpeg.",
)  # fmt: skip
@click.option(
    "--smoke", is_flag=True, help="Every method, network and loader once on synthetic data, in a minute or two."
)
@click.option("--dry-run", is_flag=True, help="Check everything, print the plan and what is missing, and stop.")
@click.option("--download", is_flag=True, help=options.DOWNLOAD)
@options.places
@options.loader_workers
@options.workers
@options.cluster
@options.keep_examples
@options.fresh
@options.batch_size
@options.precision
def command(
    suite: str, out: Path | None, seeds: tuple[int, ...] | None, full: bool, n: int | None,
    datasets: tuple[tuple[str, str], ...], smoke: bool, dry_run: bool, download: bool, **given: Any,
) -> None:  # fmt: skip
    """Run SUITE (a name of `list suites`, or a YAML file): train, craft, attack, judge, write the leaderboard."""
    from transferbench import suites
    from transferbench.scheduling.plan import describe
    from transferbench.workflows import run_suite
    from transferbench.workflows import settings as settings_check

    chosen = suites.load(suite).adapted(full, n, dict(datasets))
    if smoke:
        from transferbench import smoke as smoke_run
        from transferbench.smoke.shorten import shorten

        chosen = shorten(chosen)
    device, workers, precision = (given.pop(name) for name in ("device", "workers", "precision"))
    settings = RunSettings(root=out or Path("runs") / chosen.name, keep=given.pop("keep_examples"), **given)
    settings = replace(settings, engine=EngineOptions(precision=precision))
    if smoke:
        smoke_run.check(settings)
    planned = run_suite.planned(chosen, seeds, settings)
    settings = settings_check.placed(
        settings, device, 1 if smoke and workers is None else workers, chosen.device or "auto"
    )
    if download and not smoke:
        run_suite.download(chosen, settings)
    if dry_run:
        from transferbench.leaderboard import power
        from transferbench.workflows import run_estimate

        say("\n".join(describe(planned)))
        if not smoke:
            say(power.resolution(chosen.attacked_by_chains))
        absent = [] if smoke else run_suite.absent(planned, settings)
        if absent:
            raise InputError("; ".join(absent))
        if not smoke:
            say(run_estimate.text(planned, settings))
        return
    from transferbench.cli import console
    from transferbench.workflows.job_progress import JobProgress

    bars = JobProgress()
    if smoke:
        say(smoke_run.summary(chosen, smoke_run.run(planned, settings, bars)))
        return
    records = run_suite.complete(planned, settings, bars)
    console.print_board(settings.root, records)
    if bars.reused:
        say(f"{bars.reused} of {len(planned.jobs)} jobs were done before")
