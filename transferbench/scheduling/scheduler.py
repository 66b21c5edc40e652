"""The scheduler: finished jobs whatever happens. Jobs run on a backend, results go to the store, none runs twice."""

from __future__ import annotations

import math
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from types import FrameType
from typing import Any

from transferbench.base.errors import FaultError
from transferbench.base.progress import Progress
from transferbench.base.results import JobResult
from transferbench.base.settings import RunSettings
from transferbench.base.versions import versions
from transferbench.jobs.evaluation import BatchDependentError, EvaluationJob
from transferbench.jobs.inputs import Input, MissingInputError
from transferbench.jobs.job import Job, Output, Results
from transferbench.jobs.resources import Resources
from transferbench.scheduling import machine
from transferbench.scheduling.backends import Answer, Backend, Task
from transferbench.scheduling.backends.dask import DaskBackend
from transferbench.scheduling.backends.dask_worker import CancelledError
from transferbench.scheduling.backends.local import LocalBackend
from transferbench.scheduling.backends.processes import ProcessBackend
from transferbench.scheduling.order import Order
from transferbench.scheduling.reporter import Reporter
from transferbench.store.store import Store, key_of

OnWorkerProgress = Callable[[str, Progress], None]

_SMALL = 4.0
"""A plan of less work than so many seconds stays in this process: workers take about two to start."""
_SECONDS_PER_VALUE = 5e-7
"""Seconds that a pass takes for each value of an image, in the smallest of networks: others take longer, never less."""
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
        reporter.plan(jobs)
        self._estimate(jobs, reporter)
        todo = self._unfinished(jobs)
        done = {job.name for job in jobs} - {job.name for job in todo}
        try:
            with self._backend(todo, reporter, in_process) as backend:
                order = Order(jobs, done, longest_first=backend.workers > 1)
                run = _Run(self, backend, order, jobs, reporter)
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

    def _backend(
        self, todo: Sequence[Job[Any]], reporter: Reporter, in_process: bool
    ) -> AbstractContextManager[Backend]:
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


@dataclass
class _Running:
    """A job in the form that it runs in; `number` is the planned one's. `parts` are the tasks it was divided into, by
    name, with what of each is done; `outputs` the finished ones."""

    number: int
    job: Job[Any]
    key: str
    content: dict[str, Any]
    parts: dict[str, Job[Any]] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    outputs: dict[str, Output] = field(default_factory=dict)


class _Run:
    """One pass over a plan: which jobs are ready, which are running."""

    def __init__(
        self, scheduler: Scheduler, backend: Backend, order: Order, jobs: Sequence[Job[Any]], reporter: Reporter
    ) -> None:
        self.scheduler, self.backend, self.ready = scheduler, backend, order
        self.jobs, self.reporter = jobs, reporter
        self.running: dict[str, _Running] = {}
        """By the name of each of their tasks."""
        self.missing: set[tuple[str, Input]] = set()
        """(task, input) pairs that a worker could not read."""
        self.waiting: dict[str, list[int]] = {}
        """Further planned jobs that are answered by a running one, by its key (Job.adapted)."""
        self.answered: dict[str, JobResult] = {}
        """Results of adapted jobs of this pass by key: `fresh` runs them once."""
        graph = {job.name: {i.name for i in job.inputs if i.name not in scheduler.results} for job in jobs}
        self.graph: TopologicalSorter[str] = TopologicalSorter(graph)
        self.graph.prepare()
        self._add_ready()

    def _add_ready(self) -> None:
        for name in self.graph.get_ready():
            self.ready.add(name)

    def on_progress(self, name: str, progress: Progress) -> None:
        """A worker's message about a task; the reporter is told of the whole job."""
        running = self.running.get(name)
        if running is not None:
            running.progress[name] = progress
            known = list(running.progress.values())
            # Parts have the same number of examples, but for one.
            unheard = (len(running.parts) - len(known)) * progress.total
            robust = None if progress.robust is None else sum(part.robust or 0 for part in known) + unheard
            done, total = sum(part.done for part in known), sum(part.total for part in known) + unheard
            self.reporter.update(self.jobs[running.number], Progress(done, total, robust, progress.values))

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
                self._start(self.ready.pop())
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
            job = job.adapted(scheduler.resources, scheduler.results)
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
            scheduler.store.remove_checkpoints(key)
        elif checkpoint.exists() or scheduler.store.parts_begun(key) > 1:
            self.reporter.note(f"{job.label}: going on from its checkpoint")
        scheduler.store.mark(self.jobs[number], key, "running", content=content)
        if job is not self.jobs[number]:
            self.waiting[key] = []
        self.reporter.start(self.jobs[number])
        self._submit(_Running(number, job, key, content))

    def _submit(self, running: _Running) -> None:
        """Submit the job, in parts where workers would be idle before it has ended. One that an earlier run began goes
        on as it was divided then, with however many workers."""
        workers, job, store = self.backend.workers, running.job, self.scheduler.store
        parts, begun = [job], store.parts_begun(running.key)
        if begun > 1:
            parts = job.parts(begun)
        elif workers > 1 and not store.checkpoint(running.key).exists():
            share = self.ready.left / (2 * workers)
            parts = job.parts(min(math.ceil(job.passes / share), 2 * workers) if share > 0 else 1)
        running.parts = {part.name: part for part in parts}
        for part in parts:
            self.running[part.name] = running
            self._submit_part(running, part)

    def _submit_part(self, running: _Running, part: Job[Any]) -> None:
        scheduler, key, content = self.scheduler, running.key, running.content
        if part is not running.job:
            number = list(running.parts).index(part.name)
            key = scheduler.store.part_checkpoint(key, number, len(running.parts))
            content = part.content(scheduler.resources, scheduler.results)
        task = scheduler.task(part, key, content)
        self.backend.submit(task, scheduler.shared_inputs(part, content))

    def _settle(self, answer: Answer) -> None:
        running = self.running.pop(answer.name, None)
        if running is None:
            # Another part of its job has failed, or begun it again.
            return
        number, job, key, part = running.number, running.job, running.key, running.parts[answer.name]
        scheduler = self.scheduler
        if isinstance(answer.error, MissingInputError):
            wanted: Input = answer.error.args[0]
            if (part.name, wanted) in self.missing:
                self._give_up(running, f"{job.label}: a worker reads another {wanted} than the driver shared")
                return
            self.missing.add((part.name, wanted))
            scheduler.share(wanted, self.backend)
            self._submit_again(running, part)
        elif isinstance(answer.error, BatchDependentError) and isinstance(job, EvaluationJob):
            # The job runs again in the form of such a network.
            job.mark_batch_dependent(scheduler.resources, scheduler.results, answer.error)
            scheduler.store.remove_checkpoints(key)
            self._forget(running)
            self._start(number)
        elif isinstance(answer.error, CancelledError):
            # A worker that lost its connection for a while stops, though its answer is still wanted.
            self._submit_again(running, part)
        elif answer.lost:
            self._give_up(running, f"{job.label}: {answer.lost}")
        elif isinstance(answer.error, FaultError):
            self._give_up(running, f"{job.label}: {answer.error}")
        elif answer.error is not None:
            raise answer.error
        else:
            assert answer.output is not None
            running.outputs[part.name] = answer.output
            if len(running.outputs) == len(running.parts):
                self._finish(running)

    def _submit_again(self, running: _Running, part: Job[Any]) -> None:
        self.running[part.name] = running
        self._submit_part(running, part)

    def _forget(self, running: _Running) -> None:
        """No answer to the job's other parts is wanted."""
        for name in running.parts:
            self.running.pop(name, None)

    def _give_up(self, running: _Running, reason: str) -> None:
        self._forget(running)
        self._failed(running.number, running.key, reason)

    def _finish(self, running: _Running) -> None:
        """Store the result of a job whose parts are all there."""
        number, job, key, scheduler = running.number, running.job, running.key, self.scheduler
        outputs = [running.outputs[name] for name in running.parts]
        output = outputs[0] if len(outputs) == 1 else job.joined(outputs)
        execution = output.result.execution
        result = replace(job.keep(scheduler.store, key, output), execution=execution, key=key)
        scheduler.store.finish(key, job, running.content, result)
        if job is not self.jobs[number]:
            self.answered[key] = result
        for position in (number, *self.waiting.pop(key, [])):
            if job is not self.jobs[position]:
                scheduler.store.mark(self.jobs[position], key, "done", content=running.content)
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
        self.graph.done(job.name)
        self.ready.close(job.name)
        self._add_ready()


def _ignore(name: str, progress: Progress) -> None:
    """No job is running."""


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
