"""A suite of a few seconds, and a reporter that remembers: for all tests that carry out whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transferbench import suites
from transferbench.jobs.job import Job
from transferbench.scheduling.scheduler import Runner
from transferbench.store.store import Store
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


class Silent:
    """A reporter that remembers which jobs were run and which were found."""

    def __init__(self) -> None:
        self.run: list[Job] = []
        self.found: list[Job] = []
        self.reasons: list[str] = []
        self.notes: list[str] = []

    def begin(self, job: Job, number: int, total: int) -> None:
        pass

    def update(self, job: Job, done: int, total: int, robust: int | None) -> None:
        assert 0 <= done <= total

    def failed(self, job: Job, reason: str) -> None:
        self.reasons.append(reason)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def end(self, job: Job, reused: bool) -> None:
        (self.found if reused else self.run).append(job)


def go(root: Path, reporter: Silent | None = None, text: str = TINY, **more: Any) -> Silent:
    """The suite to its end in a folder; `more` is for the Runner. The reporter remembers what was run and found."""
    path = root.parent / "tiny.yaml"
    path.write_text(text)
    reporter = reporter or Silent()
    with Store(root) as store:
        run_suite.run_suite(suites.load(str(path)), (0,), Runner(store, **more), reporter)
    return reporter
