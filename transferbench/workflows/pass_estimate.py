"""How long the attacks of a plan may take, said before the first one: passes by count, their time by measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from transferbench.base.durations import duration
from transferbench.base.progress import Progress
from transferbench.engine.gradients import outputs
from transferbench.jobs.attack import AttackJob
from transferbench.jobs.craft import CraftJob
from transferbench.jobs.job import Job
from transferbench.scheduling.reporter import Reporter
from transferbench.scheduling.scheduler import Scheduler

_ROWS = 32
"""Rows of a timed pass on a CPU, where the time of a row hardly depends on their number."""
_TIMED = 3
_LONG = 2.0
"""A pass that takes more seconds than this is not repeated."""


class EstimatingReporter:
    """Passes every event on, and before the first attack notes what all attacks that are not finished may take."""

    def __init__(self, reporter: Reporter, scheduler: Scheduler, jobs: Sequence[Job[Any]]) -> None:
        self.reporter, self.scheduler, self.jobs = reporter, scheduler, jobs
        self._said = False

    def plan(self, jobs: Sequence[Job[Any]], workers: int) -> None:
        self.reporter.plan(jobs, workers)

    def begin(self, job: Job[Any], number: int, total: int) -> None:
        self.reporter.begin(job, number, total)

    def start(self, job: Job[Any]) -> None:
        if isinstance(job, AttackJob | CraftJob) and not self._said:
            self._said = True
            self.reporter.note(estimate(self.scheduler, self.jobs, job))
        self.reporter.start(job)

    def update(self, job: Job[Any], progress: Progress) -> None:
        self.reporter.update(job, progress)

    def end(self, job: Job[Any], seconds: float | None) -> None:
        self.reporter.end(job, seconds)

    def failed(self, job: Job[Any], reason: str) -> None:
        self.reporter.failed(job, reason)

    def note(self, text: str) -> None:
        self.reporter.note(text)


def estimate(scheduler: Scheduler, jobs: Sequence[Job[Any]], first: AttackJob | CraftJob) -> str:
    """A line: the most passes (a forward and a backward one of a row) of the plan's attacks that are not finished, and
    the time at the speed of the network of `first`, whose inputs are ready."""
    finished = set() if scheduler.settings.fresh else scheduler.store.finished()
    todo = [job for job in jobs if isinstance(job, AttackJob | CraftJob) and job.name not in finished]
    counted = [job for job in todo if isinstance(job, CraftJob) or job.backend == "transferbench"]
    if not counted:
        return f"attacks: {len(todo)} jobs of pyautoattack, whose passes are not known beforehand"
    passes = round(sum(job.passes for job in counted))
    line = f"attacks: at most {passes:,} passes (examples that are broken early cost fewer)"
    seconds = _seconds_per_pass(scheduler, first) if isinstance(first, AttackJob) else None
    if seconds is None:
        return line
    workers = scheduler.settings.workers
    shared = f", which up to {workers} share" if workers > 1 else ""
    speed = f"one takes {1000 * seconds:.3g} ms on {first.network.id} here"
    return f"{line}; {speed}: at most {duration(passes * seconds)} in one process{shared}"


def _seconds_per_pass(scheduler: Scheduler, job: AttackJob) -> float | None:
    """The time of a pass; None where attacks run on another device than this process has, and for a network whose
    answers change from call to call, which is not called for this."""
    resources, where = scheduler.resources, (job.images.dataset, job.images.preprocessing)
    if scheduler.settings.gpus or scheduler.settings.cluster is not None:
        return None
    target = resources.target(job.network.input(scheduler.results), *where)
    if target.batch_dependent:
        return None
    pixels = resources.images(resources.sample(*where)).on(resources.device).pixels
    on_cpu = pixels.device.type == "cpu"
    rows = min(target.rows.most, _ROWS) if on_cpu else target.rows.most
    batch = pixels.repeat(-(-rows // len(pixels)), *[1] * (pixels.dim() - 1))[:rows]
    taken: list[float] = []
    # The first pass also prepares what later ones reuse.
    for _ in range(1 + _TIMED):
        began = time.perf_counter()
        outputs(target.search.network, batch)
        if not on_cpu:
            torch.cuda.synchronize(pixels.device)
        taken.append(time.perf_counter() - began)
        if taken[-1] > _LONG:
            break
    return min(taken) / rows
