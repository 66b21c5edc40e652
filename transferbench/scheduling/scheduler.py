"""The scheduler: finished jobs whatever happens. Jobs run on a backend, results go to the store, none runs twice."""

from __future__ import annotations

import heapq
import math
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from graphlib import TopologicalSorter
from types import FrameType
from typing import Any, NamedTuple

from transferbench.base.errors import FaultError
from transferbench.base.results import JobResult
from transferbench.base.settings import RunSettings
from transferbench.base.versions import versions
from transferbench.engine.chain import MixedRowsError
from transferbench.jobs.evaluation import EvaluationJob
from transferbench.jobs.inputs import Input, MissingInputError
from transferbench.jobs.job import Job, Results
from transferbench.jobs.resources import Resources
from transferbench.scheduling.backends import Answer, Backend, Task
from transferbench.scheduling.backends.dask import DaskBackend
from transferbench.scheduling.backends.local import LocalBackend
from transferbench.scheduling.backends.worker import CancelledError, Message
from transferbench.scheduling.reporter import Reporter
from transferbench.store.store import Store, key_of

_HANDLES = 64
"""Maximum number of shared inputs that are kept on the workers at once."""


class Scheduler:
    """Runs jobs in this process or on a cluster, through the store of a folder.

    A job that fails by a fault, or whose workers die, is reported and left out with everything that needs it; the rest
    goes on. With `settings.fresh` finished jobs run again, each replacing its old result when it is done.
    """

    def __init__(self, store: Store, settings: RunSettings, resources: Resources | None = None) -> None:
        data_dir, model_dir = (None if p is None else p.resolve() for p in (settings.data_dir, settings.model_dir))
        self.store = store
        self.settings = replace(settings, root=store.root.resolve(), data_dir=data_dir, model_dir=model_dir)
        # With a cluster the driver only reads and shares: it needs no GPU of its own.
        device = None if settings.cluster is None else "cpu"
        self.resources = resources or Resources(self.settings, device=device)
        self.results = Results()
        self.failures: dict[str, str] = {}
        """Reasons by job name."""
        self._shared: dict[Input, Any] = {}

    def run(self, jobs: Sequence[Job[Any]], reporter: Reporter, in_process: bool = False) -> None:
        """Run every job that can run; afterwards `results` and `failures` hold what became of them.

        `in_process`: in this process, whatever the settings' cluster.
        """
        self.store.plan(jobs)
        reporter.plan(jobs)
        self._estimate(jobs, reporter)
        with self._backend(jobs, reporter, in_process) as backend:
            _Run(self, backend, jobs, reporter).run()

    def _backend(self, jobs: Sequence[Job[Any]], reporter: Reporter, in_process: bool) -> Backend:
        if self.settings.cluster is None or in_process:
            return LocalBackend(self.resources, self.store, reporter)
        by_name = {job.name: job for job in jobs}

        def report(message: Message) -> None:
            # An adapted job has a name of its own.
            if message.job in by_name:
                reporter.update(by_name[message.job], message.progress)

        return DaskBackend(self.settings.cluster, self.settings.device, report)

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


class _Running(NamedTuple):
    """A job in the form that it runs in; `number` is the planned one's."""

    number: int
    job: Job[Any]
    key: str
    content: dict[str, Any]


class _Run:
    """One pass over a plan: which jobs are ready, which are running."""

    def __init__(self, scheduler: Scheduler, backend: Backend, jobs: Sequence[Job[Any]], reporter: Reporter) -> None:
        self.scheduler, self.backend, self.jobs, self.reporter = scheduler, backend, jobs, reporter
        self.numbers = {job.name: number for number, job in enumerate(jobs)}
        self.running: dict[str, _Running] = {}
        self.missing: set[tuple[str, Input]] = set()
        """(job, input) pairs that a worker could not read."""
        self.waiting: dict[str, list[int]] = {}
        """Further planned jobs that are answered by a running one, by its key (Job.adapted)."""
        self.answered: dict[str, JobResult] = {}
        """Results of adapted jobs of this pass by key: `fresh` runs them once."""
        self.ready: list[int] = []
        graph = {job.name: {i.name for i in job.inputs if i.name not in scheduler.results} for job in jobs}
        self.order: TopologicalSorter[str] = TopologicalSorter(graph)
        self.order.prepare()
        self._add_ready()

    def _add_ready(self) -> None:
        """Among the ready jobs those that come first in the plan run first."""
        for name in self.order.get_ready():
            heapq.heappush(self.ready, self.numbers[name])

    def run(self) -> None:
        recorded: list[int] = []
        try:
            with _interruptible() as recorded:
                self._run(recorded)
        except BaseException as error:
            # Whatever stopped the run, answers that are there already are not thrown away.
            while self.running and self.backend.ready:
                self._settle(self.backend.next())
            if recorded and isinstance(error, Exception):
                # A library turned Ctrl-C into an error of its own, here or on a worker.
                raise KeyboardInterrupt from error
            raise

    def _run(self, interrupts: list[int]) -> None:
        while self.ready or self.running:
            while self.ready and self.backend.capacity > 0:
                self._start(heapq.heappop(self.ready))
            if self.running:
                self._settle(self.backend.next())
            if interrupts:
                raise KeyboardInterrupt

    def _start(self, number: int) -> None:
        job, scheduler = self.jobs[number], self.scheduler
        if any(input.name in scheduler.failures for input in job.inputs):
            self._failed(number, "", f"{job.label}: not run, because what it needs has failed")
            return
        content = job.content(scheduler.resources, scheduler.results)
        key = key_of(job, content)
        self.reporter.begin(job, number, len(self.jobs))
        for note in scheduler.resources.new_notes():
            self.reporter.note(note)
        stored = None if scheduler.settings.fresh else scheduler.stored(job, key)
        if stored is None:
            try:
                job = job.adapted(scheduler.resources, scheduler.results)
            except FaultError as error:
                self._failed(number, key, f"{job.label}: {error}")
                return
            if job is not self.jobs[number]:
                content = job.content(scheduler.resources, scheduler.results)
                key = key_of(job, content)
                if key in self.waiting:
                    self.waiting[key].append(number)
                    return
                found = None if scheduler.settings.fresh else scheduler.stored(job, key)
                stored = self.answered.get(key) or found
        if stored is not None:
            scheduler.store.mark(self.jobs[number], key, "done", content=content)
            self._done(number, stored, reused=True)
            return
        changes = [] if scheduler.store.find(job, key) is not None else scheduler.store.changes(job, content)
        if changes:
            self.reporter.note(f"{job.label}: run anew, {'; '.join(changes[:3])}")
        checkpoint = scheduler.store.checkpoint(key)
        if scheduler.settings.fresh:
            checkpoint.remove()
        elif checkpoint.exists():
            self.reporter.note(f"{job.label}: going on from its checkpoint")
        scheduler.store.mark(self.jobs[number], key, "running", content=content)
        if job is not self.jobs[number]:
            self.waiting[key] = []
        self.reporter.start(self.jobs[number])
        self._submit(_Running(number, job, key, content))

    def _submit(self, running: _Running) -> None:
        job = running.job
        self.running[job.name] = running
        task = self.scheduler.task(job, running.key, running.content)
        self.backend.submit(task, self.scheduler.shared_inputs(job, running.content))

    def _settle(self, answer: Answer) -> None:
        running = self.running.pop(answer.name)
        number, job, key, content = running
        scheduler = self.scheduler
        if isinstance(answer.error, MissingInputError):
            wanted: Input = answer.error.args[0]
            if (job.name, wanted) in self.missing:
                self._failed(number, key, f"{job.label}: a worker reads another {wanted} than the driver shared")
                return
            self.missing.add((job.name, wanted))
            scheduler.share(wanted, self.backend)
            self._submit(running)
        elif isinstance(answer.error, MixedRowsError):
            # Found at the end points only: the job runs again in the form of such a network.
            job.mark_batch_dependent(scheduler.resources, scheduler.results)
            scheduler.store.checkpoint(key).remove()
            self._start(number)
        elif isinstance(answer.error, CancelledError):
            # A worker that lost its connection for a while stops, though its answer is still wanted.
            self._submit(running)
        elif answer.lost:
            self._failed(number, key, f"{job.label}: {answer.lost}")
        elif isinstance(answer.error, FaultError):
            self._failed(number, key, f"{job.label}: {answer.error}")
        elif answer.error is not None:
            raise answer.error
        else:
            assert answer.output is not None
            execution = answer.output.result.execution
            result = replace(job.keep(scheduler.store, key, answer.output), execution=execution, key=key)
            scheduler.store.finish(key, job, content, result)
            if job is not self.jobs[number]:
                self.answered[key] = result
            for position in (number, *self.waiting.pop(key, [])):
                if job is not self.jobs[position]:
                    scheduler.store.mark(self.jobs[position], key, "done", content=content)
                self._done(position, result, reused=position != number)

    def _done(self, number: int, result: JobResult, reused: bool) -> None:
        job = self.jobs[number]
        self.scheduler.results[job.name] = result
        self.reporter.end(job, reused)
        for note in () if reused else result.notes:
            self.reporter.note(f"{job.label}: {note}")
        self._release(job)

    def _failed(self, number: int, key: str, reason: str) -> None:
        job = self.jobs[number]
        self.scheduler.failures[job.name] = reason
        self.scheduler.store.mark(job, key, "failed", reason)
        self.reporter.failed(job, reason)
        self._release(job)
        for waiting in self.waiting.pop(key, []):
            self._failed(waiting, "", reason)

    def _release(self, job: Job[Any]) -> None:
        self.order.done(job.name)
        self._add_ready()


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Ctrl-C raises KeyboardInterrupt as usual, and is recorded in the list: a library's callback may swallow it."""
    recorded: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield recorded
        return

    def record(number: int, frame: FrameType | None) -> None:
        recorded.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, record)
    try:
        yield recorded
    finally:
        signal.signal(signal.SIGINT, before)
