"""`transferbench train`: one victim with a method."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from transferbench.base.names import victim_name
from transferbench.base.settings import RunSettings
from transferbench.cli import options
from transferbench.cli.output import say


@click.command("train", cls=options.Command, short_help="Train one victim with a method.")
@click.option("--plugin", required=True, metavar="NAME", help="A method of `list methods`.")
@click.option("--source", metavar="ID", help="The pre-trained model to start from.")
@click.option(
    "--network",
    default="",
    metavar="NAME",
    help="Architecture where it is not the source's (without a source: small-resnet).",
)
@click.option(
    "--target", default="", metavar="DATASET", help="Data set to train on (default: the built-in digits task)."
)
@click.option("--shots", type=int, metavar="K", help="Train on K images of each class, drawn by the seed.")
@click.option(
    "--shots-rule",
    type=click.Choice(["keyed", "renofeation"]),
    default="keyed",
    help="Which ones: by the seed, or those that Renofeation's code draws (seed 98).",
)
@click.option(
    "--preprocessing", default="", metavar="TEXT", help="What photographs go through (default: the source's own size)."
)
@click.option("--download", is_flag=True, help=options.DOWNLOAD)
@click.option("--set", "set_", multiple=True, metavar="KEY=VALUE", help="A hyper-parameter.")
@click.option("--config", type=options.FOLDER, metavar="FILE", help="Hyper-parameters as YAML; --set takes precedence.")
@click.option("--out", type=options.FOLDER, metavar="DIR", help="The new victim's folder (default: runs/<plugin>).")
@click.option(
    "--eval-freq",
    type=int,
    metavar="E",
    help="Measure robustness every E epochs: APGD-100 on 200 + 200 images.",
)
@click.option("--tensorboard", is_flag=True, help="Also log to <out>/tensorboard.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Cores for this training; another number trains other weights in the last bits (default: 1).",
)
@options.places
@options.loader_workers
@options.fresh
def command(
    plugin: str,
    target: str,
    set_: tuple[str, ...],
    config: Path | None,
    out: Path | None,
    tensorboard: bool,
    **given: Any,
) -> None:
    """Train one victim with a method, from a source or from scratch.

    With --plugin alone: 8x8 digits from a robust network of letters, which come with the package, in under a minute.
    """
    from transferbench.workflows import default_task, train
    from transferbench.workflows.job_progress import JobProgress

    values = {**(train.read_config(config) if config is not None else {}), **options.pairs("--set", set_)}
    names = ("source", "network", "shots", "shots_rule", "preprocessing", "download")
    request = train.TrainingRequest(plugin, target, settings=values, **{name: given.pop(name) for name in names})
    request, out, added = default_task.with_folder(request, out)
    device = given.pop("device")
    settings = RunSettings(root=out, **given)
    train.check(request, settings)
    if victim_name(out) != out.name:
        print(f"the victim's name is {victim_name(out)}", file=sys.stderr)
    if added:
        print(f"taken as default: {' '.join(added)}", file=sys.stderr)
    prepared, result, reused = train.run(request, settings, device, JobProgress(), tensorboard)
    share, val = result.validation_accuracy, prepared.splits[1]
    if share is None or val is None:
        say(f"{prepared.job.victim}: trained on {len(prepared.splits[0])} images, none kept for validation")
    else:
        say(f"{prepared.job.victim}: validation accuracy {100 * share:.2f} % on {len(val)} images")
    if reused:
        say("it was trained before: nothing was run (--fresh trains it anew)")
    say(f"files: {out}/ ({', '.join(train.FILES)})")
    source = None if prepared.job.source is None else str(request.source)
    say(_attack(out, settings.data_dir, request.target, bool(prepared.job.threats), source))


def _runs_code(out: Path) -> bool:
    """Whether reading what was trained runs a function of the user's own."""
    from transferbench.models import python_function, trained

    return python_function.PREFIX in trained.card(out).network


def _attack(out: Path, data_dir: Path | None, target: str, has_radii: bool, source: str | None) -> str:
    """The line that names the command for what was trained, as a shell takes it."""
    from transferbench.models.victims import path_id

    words = ["transferbench", "eval", "--model", path_id(out)]
    words += [] if data_dir is None else ["--data-dir", str(data_dir)]
    words += [] if source is None else ["--source", source]
    words += ["--trust-code"] if _runs_code(out) else []
    if has_radii:
        return f"attack it: {shlex.join(words)}"
    return (
        f"attack it: {shlex.join(words)} with --eps Linf=...,L2=...,L1=... (neither a source's card nor {target} says "
        "at which radii)"
    )
