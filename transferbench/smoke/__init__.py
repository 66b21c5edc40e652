"""`run SUITE --smoke`: every method, network and loader of a suite at least once, in a minute or two, on a CPU.

Trainings of a few steps on synthetic images from random source weights, attacked for two iterations on four examples.
It tells whether a suite can run on this machine before days are spent on it, and nothing else: everything that it
writes is marked untrained, and is never a row of a leaderboard.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from transferbench.base import dataset_id, registry
from transferbench.base.dataset_id import DatasetId
from transferbench.base.errors import InputError
from transferbench.base.settings import EngineOptions, RunSettings
from transferbench.models import networks, victims
from transferbench.results.records import Record
from transferbench.scheduling.plan import Plan
from transferbench.scheduling.scheduler import Scheduler
from transferbench.smoke import trees
from transferbench.store.store import Store
from transferbench.suites import Suite
from transferbench.workflows import run_suite
from transferbench.workflows.job_progress import JobProgress

_ENGINE = EngineOptions(min_rows=1, search_copy=False, preflight_rows=2)
"""No verdict is kept, so a row's bits may depend on its neighbours, and making a search copy does not pay."""


def check(settings: RunSettings) -> None:
    """InputError for options that a smoke run cannot follow."""
    given = {"--cluster": settings.cluster, "--data-dir": settings.data_dir, "--model-dir": settings.model_dir}
    for option, value in given.items():
        if value is not None:
            raise InputError(f"--smoke runs here, on images and weights of its own making: leave {option} out")


def prepared(suite: Suite, settings: RunSettings) -> RunSettings:
    """Settings with synthetic images and random weights of everything that the suite names, below the run's folder.

    Files are in their official layouts and go through the real loaders. Torch chooses its number of
    threads: no figure of a smoke run is kept. InputError for a data set or a model that cannot be generated.
    """
    folder = settings.root / "synthetic"
    shutil.rmtree(folder, ignore_errors=True)
    ids = {id for block in suite.training for id in (block.source_dataset, block.target_dataset) if id}
    subsets: dict[str, list[DatasetId]] = {}
    for parsed in map(DatasetId.parse, sorted(ids)):
        subsets.setdefault(parsed.base, []).append(parsed)
    for base, of_base in subsets.items():
        if registry.literal(dataset_id.find(base), "NEEDS").get(base):
            trees.make(base, folder / "data", of_base)
    for id in sorted({source.model for block in suite.training for source in block.sources if source.model}):
        _make_weights(id, folder / "models")
    return replace(
        settings,
        data_dir=folder / "data",
        model_dir=folder / "models",
        synthetic_data=True,
        engine=_ENGINE,
        # In this process, where torch chooses its number of threads.
        workers=1,
        gpus=(),
        threads=None,
    )


def run(made: Plan, settings: RunSettings, progress: JobProgress) -> list[Record]:
    """Run a shortened suite's plan on synthetic data in the settings' folder."""
    with Store(settings.root) as store, progress, Scheduler(store, prepared(made.suite, settings)) as scheduler:
        return run_suite.run_suite(made, scheduler, progress)


def _make_weights(id: str, folder: Path) -> None:
    card = victims.card(id)
    if not card.weights:
        raise InputError(f"--smoke: the weights of {id} are not one file below --model-dir")
    path = folder / card.weights
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(networks.build(card.network, len(card.classes)).model.state_dict(), path)


def summary(suite: Suite, records: Sequence[Record]) -> str:
    """The line that a smoke run prints at its end."""
    used = {
        "methods": {record.method for record in records},
        "networks": {record.network for record in records},
        "data sets": {id for record in records for id in (record.source_dataset, record.target_dataset) if id},
    }
    parts = [f"{len(names)} {kind} ({', '.join(sorted(names))})" for kind, names in used.items()]
    return (
        f"{suite.name}: {len(records)} networks went through everything; {'; '.join(parts)}; no number means anything"
    )
