"""`transferbench eval`: attack any model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from transferbench.base.errors import InputError
from transferbench.base.settings import EngineOptions, RunSettings
from transferbench.cli import options
from transferbench.cli.output import say


@click.command("eval", cls=options.Command, short_help="Attack any model, at the radii of its card.")
@options.model
@click.option("--network", metavar="NAME", help="Architecture of a model given as file:<path>.")
@click.option("--weights-key", metavar="KEY", help="Which state dict of the file (state_dict_ema), or prefix (ema.).")
@options.dataset
@options.norms
@options.eps
@click.option(
    "--attacks",
    default="",
    type=options.NAMES,
    metavar="A,A",
    help="Attacks in order, with parameters: apgd-ce:restarts=5,apgd-t:targets=3 (default: apgd-ce,apgd-t; see "
    "`list attacks`). With --backend autoattack also standard, plus and rand.",
)
@click.option("--source", metavar="ID", help="Also attack with this public model alone.")
@click.option(
    "--attacks-source",
    default="",
    type=options.NAMES,
    metavar="A,A",
    help="Which attacks hold it alone: all, or names with parameters (default: pretrained-neuron,source-pgd).",
)
@click.option("--n", type=int, metavar="N", help="First N test examples (default: 1000, or all if fewer; "
              "all where only corruptions are measured).")  # fmt: skip
@click.option("--stratified", is_flag=True, help="The first of each class in turn, in the data set's order.")
@click.option("--seed", type=int, default=0, metavar="S", help="Seed of the random starts (default: 0).")
@click.option("--out", type=options.FOLDER, metavar="DIR", help="The run's folder (default: runs/eval).")
@click.option("--download", is_flag=True, help=options.DOWNLOAD)
@click.option("--allow-low-accuracy", is_flag=True, help="Attack a model whose clean accuracy is not above chance.")
@click.option("--backend", type=click.Choice(["transferbench", "autoattack"]), default="transferbench",
              help="The engine that runs the attacks.")  # fmt: skip
@options.places
@options.workers
@options.cluster
@options.keep_examples
@options.fresh
@options.batch_size
@options.precision
def command(out: Path | None, **given: Any) -> None:
    """Attack any model on the first test examples of a data set, at the radii of its card."""
    from transferbench.workflows import evaluate
    from transferbench.workflows import settings as settings_check

    device, workers = given.pop("device"), given.pop("workers")
    circumstances = ("data_dir", "model_dir", "cluster", "fresh", "batch_size")
    settings = RunSettings(
        root=out or Path("runs/eval"),
        keep=given.pop("keep_examples"),
        engine=EngineOptions(precision=given.pop("precision")),
        **{name: given.pop(name) for name in circumstances},
    )
    request = evaluate.EvaluationRequest(**given)
    evaluate.check(request)
    if settings.engine.precision != "fp32" and request.backend != "transferbench":
        raise InputError("--precision bf16 is of our search: leave it or --backend autoattack out")
    settings_check.check(settings)
    settings = settings_check.placed(settings, device, workers)
    from transferbench.cli import console
    from transferbench.scheduling.scheduler import Scheduler
    from transferbench.store.store import Store
    from transferbench.workflows.job_progress import JobProgress

    subjects = evaluate.load(request, settings)
    is_new = not settings.root.exists()
    try:
        with Store(settings.root) as store, JobProgress() as bars, Scheduler(store, settings) as scheduler:
            record = evaluate.evaluate(request, subjects, scheduler, bars)
            if bars.reused:
                bars.note(f"{bars.reused} jobs were done before")
    except evaluate.AtChanceError:
        if is_new:
            # Nothing but the clean accuracy was measured there.
            shutil.rmtree(settings.root, ignore_errors=True)
        raise
    say(console.evaluation_report(record, subjects.victim.card.weights))
    say(f"files: {settings.root}/ (leaderboard.csv, leaderboard.md, source_only.csv, cost.csv, records/, examples/)")
    say(f"page: {settings.root / 'index.html'}")
