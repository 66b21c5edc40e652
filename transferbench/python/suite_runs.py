"""run(): a suite from its file to its leaderboard, as the command does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from transferbench import suites
from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.numbers import whole_number
from transferbench.base.settings import EngineOptions, Precision, RunSettings
from transferbench.base.specifications import Keep
from transferbench.models import python_function
from transferbench.python.run_results import RunResults, read_results
from transferbench.workflows import run_suite
from transferbench.workflows import settings as settings_check
from transferbench.workflows.job_progress import job_progress


def run(
    suite: str | Path,
    seeds: Sequence[int] | None = None,
    out: str | Path | None = None,
    *,
    full: bool = False,
    n: int | None = None,
    datasets: Mapping[str, str] | None = None,
    device: str | None = None,
    workers: int | None = None,
    precision: Precision = "fp32",
    batch_size: int | None = None,
    data_dir: str | Path | None = None,
    model_dir: str | Path | None = None,
    cluster: str | None = None,
    keep_examples: str = "fooled",
    loader_workers: int = 0,
    download: bool = False,
    fresh: bool = False,
    trust_code: bool = False,
    progress: bool = True,
) -> RunResults:
    """Run a suite, a name of `transferbench list suites` or a YAML file, as `transferbench run` does: train, craft,
    attack, judge, write records, tables, figures and page into `out` (default: runs/<suite>).

    Returns the results, as `read_results(out)`. `seeds` are those of trainings and attacks (default: the suite's);
    `datasets` are read where the suite names others: `{"cifar10": "cifar10-jpeg"}`. A run that was stopped, here or on
    the command line, goes on where it was. The further arguments are the command's options; `device` and `workers` are
    chosen as it chooses them where they are left out.

    Raises InputError, before anything is written, for whatever the command refuses; FaultError where a job failed.
    """
    if not isinstance(suite, str | Path):
        raise InputError(f"suite: give a name or the path of a YAML file, not a {type(suite).__name__}")
    chosen_seeds = None if seeds is None else _seeds(seeds)
    if trust_code:
        python_function.trust_cards()
    chosen = suites.load(str(suite)).adapted(full, None if n is None else whole_number("n", n), datasets)
    settings = RunSettings(
        root=Path("runs") / chosen.name if out is None else Path(out),
        batch_size=batch_size,
        data_dir=None if data_dir is None else Path(data_dir),
        model_dir=None if model_dir is None else Path(model_dir),
        keep=Keep.parse(keep_examples),
        cluster=cluster,
        fresh=fresh,
        loader_workers=loader_workers,
        engine=EngineOptions(precision=precision),
    )
    if precision not in get_args(Precision):
        raise InputError(registry.unknown("precision", str(precision), get_args(Precision)))
    planned = run_suite.planned(chosen, chosen_seeds, settings)
    settings = settings_check.placed(settings, device, workers, chosen.device or "auto")
    if download:
        run_suite.download(chosen, settings)
    run_suite.complete(planned, settings, job_progress(progress))
    return read_results(settings.root)


def _seeds(given: Sequence[int]) -> tuple[int, ...]:
    """InputError unless they are distinct whole numbers from 0, at least one."""
    if not isinstance(given, list | tuple | range) or not given:
        raise InputError(f"seeds={given!r}: give a list of whole numbers, as [0, 1, 2]")
    seeds = tuple(whole_number("seeds", seed) for seed in given)
    if len(set(seeds)) != len(seeds):
        raise InputError(f"seeds={given!r}: a seed is given twice")
    return seeds
