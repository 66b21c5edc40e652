"""The scheduler: finished jobs whatever happens. Jobs run on a backend, results go to the store, none runs twice."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from transferbench.base.errors import FaultError
from transferbench.base.progress import Progress
from transferbench.base.results import JobResult
from transferbench.base.settings import RunSettings
from transferbench.base.versions import versions
from transferbench.jobs.evaluation import EvaluationJob
from transferbench.jobs.inputs import Input
from transferbench.jobs.job import Job, Results
from transferbench.jobs.resources import Resources
from transferbench.scheduling import machine
from transferbench.scheduling.backends import Backend, Task
from transferbench.scheduling.backends.dask import DaskBackend
from transferbench.scheduling.backends.local import LocalBackend
from transferbench.scheduling.backends.processes import ProcessBackend
from transferbench.scheduling.order import Order
from transferbench.scheduling.plan_run import PlanRun
from transferbench.scheduling.reporter import Reporter
from transferbench.store.store import Store

OnWorkerProgress = Callable[[str, Progress], None]

_SMALL = 4.0
"""A plan of less work than so many seconds stays in this process: workers take about two to start."""
_SECONDS_PER_VALUE = 5e-7
"""Seconds that a pass takes for each value of an image in a small network: 1e-6 in the letters' at 8x8, 1e-7 in three
convolutions and 3e-6 in a ResNet-18 at 32x32. Where it is less, workers are started for a little less work."""
_HANDLES = 64
"""Maximum number of shared inputs that are kept on the workers at once."""


class Scheduler:
    """Runs jobs in this process, in processes of this machine, or on a cluster, through the store of a folder.

    A job that fails by a fault, or whose workers die, is reported and left out with everything that needs it; the rest
    goes on. With `settings.fresh` finished jobs run again, each replacing its old result when it is done. Used as a
    context manager it keeps the worker processes between two calls of `run`.
    """

    def __init__(self, store: Store, settings: RunSettings, resources: Resources | None = None) -> None:
        data_dir, model_dir = (None if p is None else p.resolve() for p in (settings.data_dir, settings.model_dir))
        self.store = store
        self.settings = replace(settings, root=store.root.resolve(), data_dir=data_dir, model_dir=model_dir)
        # With workers on GPUs the driver only reads and shares: it needs no GPU of its own.
        device = "cpu" if settings.cluster is not None or settings.gpus else None
        self.resources = resources or Resources(self.settings, device=device)
        self.results = Results()
        self.failures: dict[str, str] = {}
        """Reasons by job name."""
        self._shared: dict[Input, Any] = {}
        self._processes: ProcessBackend | None = None
        self._keeps_processes = False
        self._said: set[str] = set()
        self._on_progress: OnWorkerProgress = _ignore

    def __enter__(self) -> Scheduler:
        self._keeps_processes = True
        return self

    def __exit__(self, *_: object) -> None:
        self._keeps_processes = False
        self._end_processes()

    def run(self, jobs: Sequence[Job[Any]], reporter: Reporter, in_process: bool = False) -> None:
        """Run every job that can run; afterwards `results` and `failures` hold what became of them.

        `in_process`: in this process if it has what the workers have, whatever the settings say.
        """
        self.store.plan(jobs)
        if not in_process:
            self.announce(jobs, reporter)
        self._estimate(jobs, reporter)
        todo = self._unfinished(jobs)
        done = {job.name for job in jobs} - {job.name for job in todo}
        try:
            with self._backend(todo, in_process) as backend:
                reporter.plan(jobs, max(1, backend.workers))
                order = Order(jobs, done, longest_first=backend.workers > 1)
                run = PlanRun(self, backend, order, jobs, reporter)
                self._on_progress = run.on_progress
                run.run()
        except BaseException:
            # Workers may be in the middle of something.
            self._end_processes()
            raise
        finally:
            self._on_progress = _ignore
            if not self._keeps_processes:
                self._end_processes()

    def _backend(self, todo: Sequence[Job[Any]], in_process: bool) -> AbstractContextManager[Backend]:
        settings = self.settings
        if settings.cluster is not None and not in_process:
            return DaskBackend(settings.cluster, settings.device, self._progress)
        if self._stays_here(todo, in_process):
            return LocalBackend(self.resources, self.store, self._progress)
        if self._processes is None:
            self._processes = ProcessBackend(settings.workers, settings.gpus, self._progress)
        return nullcontext(self._processes)

    def _stays_here(self, todo: Sequence[Job[Any]], in_process: bool) -> bool:
        settings = self.settings
        return settings.workers == 1 or (not settings.gpus and (in_process or self._is_small(todo)))

    def announce(self, jobs: Sequence[Job[Any]], reporter: Reporter) -> None:
        """Say where these jobs will run: the first line, also of a command that runs others before them."""
        is_little = self.settings.workers > 1 and self._stays_here(self._unfinished(jobs), in_process=False)
        self._say(reporter, machine.IN_PROCESS if is_little else self.settings.place)

    def _unfinished(self, jobs: Sequence[Job[Any]]) -> list[Job[Any]]:
        done = set() if self.settings.fresh else self.store.finished()
        return [job for job in jobs if job.name not in done]

    def _say(self, reporter: Reporter, text: str) -> None:
        """Say where jobs run, once."""
        if text and text not in self._said:
            self._said.add(text)
            reporter.note(text)

    def _is_small(self, todo: Sequence[Job[Any]]) -> bool:
        """Whether the jobs are one that cannot be divided, or take less time than workers take to start."""
        if len(todo) == 0 or (len(todo) == 1 and len(todo[0].parts(2)) == 1):
            return True
        seconds = 0.0
        for job in todo:
            seconds += job.passes * job.image_size(self.resources) * _SECONDS_PER_VALUE
            if seconds > _SMALL:
                return False
        return True

    def _progress(self, name: str, progress: Progress) -> None:
        self._on_progress(name, progress)

    def _end_processes(self) -> None:
        if self._processes is not None:
            self._processes.__exit__(None, None, None)
            self._processes = None

    def _estimate(self, jobs: Sequence[Job[Any]], reporter: Reporter) -> None:
        """Report how much the end points may take, with a warning where the disk is smaller."""
        keep, most = self.settings.keep, 0
        for job in jobs:
            if isinstance(job, EvaluationJob) and (rows := job.end_points(keep)):
                shape = self.resources.test(job.images.dataset, job.images.preprocessing).shape
                most += rows * math.prod(shape) * 4
        free = shutil.disk_usage(self.store.root).free
        if most:
            reporter.note(f"examples ({keep}): at most {most / 2**20:.1f} MiB")
        if most > free:
            reporter.note(f"only {free / 2**20:.1f} MiB are free: --keep-examples sample:N keeps fewer")

    def task(self, job: Job[Any], key: str, content: Mapping[str, Any]) -> Task:
        """The job as a backend takes it."""
        results = Results({input.name: self.results[input.name] for input in job.inputs})
        return Task(job, key, content, results, self.settings, versions())

    def stored(self, job: Job[Any], key: str) -> JobResult | None:
        """The result of a finished job, if all files that it names are intact."""
        result: JobResult | None = self.store.find(job, key)
        return result if result is not None and job.is_intact(result, self.store, self.settings.keep) else None

    def shared_inputs(self, job: Job[Any], content: Mapping[str, Any]) -> dict[Input, Any]:
        """Handles of the job's inputs that were shared with the workers."""
        needs = job.needs(self.resources, content, self.results)
        return {need.input: self._shared[need.input] for need in needs if need.input in self._shared}

    def share(self, wanted: Input, backend: Backend) -> None:
        """Share an input's content with the workers. The oldest handles are released, and made again if needed."""
        if wanted not in self._shared:
            self._shared[wanted] = backend.share(wanted.share(self.resources))
        while len(self._shared) > _HANDLES:
            del self._shared[next(iter(self._shared))]

    def raise_failures(self) -> None:
        """FaultError naming what failed, if anything did."""
        if self.failures:
            first = next(iter(self.failures.values()))
            others = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            raise FaultError(f"{first}{others}; the rest is finished and kept: transferbench runs {self.store.root}")


def _ignore(name: str, progress: Progress) -> None:
    """No job is running."""
