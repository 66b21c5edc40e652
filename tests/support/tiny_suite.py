"""A suite of a few seconds, and a reporter that records, for all tests that carry out whole runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transferbench import suites
from transferbench.base.progress import Progress
from transferbench.base.settings import RunSettings
from transferbench.jobs.job import Job
from transferbench.results.records import Record
from transferbench.scheduling.plan import plan
from transferbench.scheduling.scheduler import Scheduler
from transferbench.store.store import Store
from transferbench.suites import Suite
from transferbench.workflows import run_suite

TINY = """
name: tiny
title: a suite for tests
n: 24
threats: {Linf: "0.1", L2: "0.4", L1: "1.5"}
protocol:
  description: "tiny"
  chains:
    Linf: &chain [{id: apgd-ce, n_iter: 4, restarts: 1}, {id: apgd-t, n_iter: 4, targets: 2}]
    L2: *chain
    L1: *chain
  further: [{name: pgd20_linf, norm: Linf, attacks: [{id: pgd, k: 3}]}]
  source_only:
    eps: "0.1"
    attack: {id: pretrained-neuron, neurons: 2, n_iter: 3}
    control: {id: random-sign, draws: 2}
training:
  network: small-resnet
  source_dataset: letters
  target_dataset: digits
  sources: [{name: natural, method: natural, set: {steps: 30, batch_size: 128}}]
  rows:
    - {name: probe, method: probe, source: natural, set: {steps: 20, batch_size: 64, lr: 0.1}}
    - {name: finetune, method: finetune, source: natural, set: {steps: 20, lr: 0.02}}
"""


class Recorder:
    """A reporter that records which jobs were run and which were found finished."""

    def __init__(self) -> None:
        self.run: list[Job[Any]] = []
        self.found: list[Job[Any]] = []
        self.reasons: list[str] = []
        self.notes: list[str] = []

    def plan(self, jobs: Sequence[Job[Any]], workers: int) -> None:
        pass

    def begin(self, job: Job[Any], number: int, total: int) -> None:
        pass

    def start(self, job: Job[Any]) -> None:
        pass

    def update(self, job: Job[Any], progress: Progress) -> None:
        assert 0 <= progress.done <= progress.total

    def failed(self, job: Job[Any], reason: str) -> None:
        self.reasons.append(reason)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def end(self, job: Job[Any], seconds: float | None) -> None:
        (self.found if seconds is None else self.run).append(job)


def tiny(folder: Path, text: str = TINY) -> Suite:
    """The suite of that text, from a file in the folder."""
    path = folder / "tiny.yaml"
    path.write_text(text)
    return suites.load(str(path))


def run(
    suite: Suite, root: Path, reporter: Recorder | None = None, seeds: tuple[int, ...] = (0,), **settings: Any
) -> tuple[list[Record], Recorder]:
    """The suite to its end in a folder; `settings` are RunSettings."""
    reporter = reporter or Recorder()
    run_suite.check(suite)
    with Store(root) as store:
        scheduler = Scheduler(store, RunSettings(**settings))
        return run_suite.run_suite(plan(suite, seeds), scheduler, reporter), reporter


def run_tiny(root: Path, reporter: Recorder | None = None, text: str = TINY, **settings: Any) -> Recorder:
    """The tiny suite to its end. Returns the reporter."""
    return run(tiny(root.parent, text), root, reporter, **settings)[1]
