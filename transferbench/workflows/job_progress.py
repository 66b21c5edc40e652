"""Progress of a run's jobs on standard error: bars in a terminal, lines elsewhere. Commands and Python share it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from transferbench.base.durations import duration
from transferbench.base.printable_text import printable
from transferbench.base.progress import OnProgress, Progress
from transferbench.jobs.attack import AttackJob
from transferbench.jobs.job import Job
from transferbench.jobs.train import TrainJob
from transferbench.jobs.universal import UniversalJob
from transferbench.workflows.remaining_time import RemainingTime

EVERY = 30.0
"""Seconds between two lines about how far the running jobs are, where the output is no terminal."""


def make_console(stderr: bool = False) -> Console:
    """A console that prints text as it is: a name in brackets is no style."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


class JobProgress:
    """A scheduling.reporter.Reporter: one bar over all jobs with the time left, and one for every running job.

    Where the output is no terminal, lines take their place: when a job begins, every half minute while it runs, and
    when it has ended, with its time and how long the rest may take.
    """

    def __init__(self) -> None:
        self.console = make_console(stderr=True)
        self.live = self.console.is_terminal
        self.done, self.total, self.reused = 0, 0, 0
        self.remaining = RemainingTime()
        self._tasks: dict[str, TaskID] = {}
        self._listeners: list[OnProgress] = []
        self._said = time.monotonic()
        self._progress = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
            transient=True,
        )

    def also(self, listener: OnProgress) -> None:
        """Call the listener with every job's progress as well."""
        self._listeners.append(listener)

    def __enter__(self) -> JobProgress:
        self._progress.start()
        self._all = self._progress.add_task("all jobs", total=None, note="", visible=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._progress.stop()

    def plan(self, jobs: Sequence[Job[Any]], workers: int) -> None:
        self.done, self.total = 0, len(jobs)
        self.remaining.plan(jobs, workers)
        self._progress.reset(self._all, total=len(jobs), visible=len(jobs) > 1)

    def begin(self, job: Job[Any], number: int, total: int) -> None:
        """Nothing is said about a job that may be finished already."""

    def start(self, job: Job[Any]) -> None:
        self._tasks[job.name] = self._progress.add_task(job.label, total=None, note=job.size)
        if not self.live:
            self.note(f"[{self.done + len(self._tasks)}/{self.total}] {job.label}: begins, {job.size}")

    def update(self, job: Job[Any], progress: Progress) -> None:
        for listener in self._listeners:
            listener(progress)
        note = _note(job, progress)
        if job.name in self._tasks:
            self._progress.update(
                self._tasks[job.name], completed=progress.done, total=progress.total, note=note, visible=True
            )
        if not self.live and time.monotonic() - self._said >= EVERY:
            self.note(f"{job.label}: {progress.done} of {progress.total} {note}")

    def end(self, job: Job[Any], seconds: float | None) -> None:
        self.remaining.end(job, seconds)
        self._remove(job)
        self.reused += seconds is None
        if not self.live and seconds is not None:
            left = self.remaining.text()
            self.note(f"[{self.done}/{self.total}] {job.label}: {duration(seconds)}{f', {left}' if left else ''}")

    def failed(self, job: Job[Any], reason: str) -> None:
        self.remaining.end(job, None)
        self._remove(job)
        self.note(f"failed: {reason}")

    def note(self, text: str) -> None:
        self._said = time.monotonic()
        self.console.print(printable(text), soft_wrap=not self.live)

    def _remove(self, job: Job[Any]) -> None:
        self.done += 1
        self._progress.update(self._all, advance=1, note=self.remaining.text())
        task = self._tasks.pop(job.name, None)
        if task is not None:
            self._progress.remove_task(task)


def _note(job: Job[Any], progress: Progress) -> str:
    if isinstance(job, TrainJob):
        return "  ".join(["steps", *(f"{name} {value:.3f}" for name, value in progress.values.items())])
    if isinstance(job, UniversalJob):
        return "steps"
    if isinstance(job, AttackJob) and progress.robust is not None:
        return f"examples, {progress.robust} still robust"
    return "examples"


class NoProgress(JobProgress):
    """Shows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.console = Console(quiet=True)
        self.live = False
        self._progress.disable = True


def job_progress(wanted: bool) -> JobProgress:
    """What shows how far a run is; nothing unless it is wanted."""
    return JobProgress() if wanted else NoProgress()
