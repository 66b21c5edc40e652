"""One pass over a plan: which jobs are ready, which are running, what becomes of their answers."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from types import FrameType
from typing import TYPE_CHECKING, Any

from transferbench.base.errors import FaultError
from transferbench.base.progress import Progress
from transferbench.base.results import JobResult
from transferbench.jobs.evaluation import BatchDependentError, EvaluationJob
from transferbench.jobs.inputs import Input, MissingInputError
from transferbench.jobs.job import Job, Output
from transferbench.scheduling.backends import Answer, Backend
from transferbench.scheduling.backends.dask_worker import CancelledError
from transferbench.scheduling.order import Order
from transferbench.scheduling.reporter import Reporter
from transferbench.store.store import key_of

if TYPE_CHECKING:
    from transferbench.scheduling.scheduler import Scheduler


@dataclass
class RunningJob:
    """A job in the form that it runs in; `number` is the planned one's. `parts` are the tasks it was divided into, by
    name, with what of each is done; `outputs` the finished ones."""

    number: int
    job: Job[Any]
    key: str
    content: dict[str, Any]
    parts: dict[str, Job[Any]] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    outputs: dict[str, Output] = field(default_factory=dict)


class PlanRun:
    """Gives ready jobs to a backend, in parts where workers would be idle, and stores what is answered."""

    def __init__(
        self, scheduler: Scheduler, backend: Backend, order: Order, jobs: Sequence[Job[Any]], reporter: Reporter
    ) -> None:
        self.scheduler, self.backend, self.ready = scheduler, backend, order
        self.jobs, self.reporter = jobs, reporter
        self.running: dict[str, RunningJob] = {}
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
            self._done(number, stored, None)
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
        self._submit(RunningJob(number, job, key, content))

    def _submit(self, running: RunningJob) -> None:
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

    def _submit_part(self, running: RunningJob, part: Job[Any]) -> None:
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

    def _submit_again(self, running: RunningJob, part: Job[Any]) -> None:
        self.running[part.name] = running
        self._submit_part(running, part)

    def _forget(self, running: RunningJob) -> None:
        """No answer to the job's other parts is wanted."""
        for name in running.parts:
            self.running.pop(name, None)

    def _give_up(self, running: RunningJob, reason: str) -> None:
        self._forget(running)
        self._failed(running.number, running.key, reason)

    def _finish(self, running: RunningJob) -> None:
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
            self._done(position, result, execution.seconds if position == number else None)

    def _done(self, number: int, result: JobResult, seconds: float | None) -> None:
        job = self.jobs[number]
        self.scheduler.results[job.name] = result
        self.reporter.end(job, seconds)
        for note in () if seconds is None else result.notes:
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
