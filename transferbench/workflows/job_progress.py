"""Progress of a run's jobs on standard error: bars in a terminal, lines elsewhere. Commands and Python share it."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from transferbench.base.printable_text import printable
from transferbench.base.progress import OnProgress, Progress
from transferbench.jobs.job import Job


def make_console(stderr: bool = False) -> Console:
    """A console that prints text as it is: a name in brackets is no style."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


class JobProgress:
    """A scheduling.reporter.Reporter: one bar over all jobs with the time left, and one for every running job.

    Where the output is no terminal, one line per finished job takes their place.
    """

    def __init__(self) -> None:
        self.console = make_console(stderr=True)
        self.live = self.console.is_terminal
        self.done, self.total, self.reused = 0, 0, 0
        self._tasks: dict[str, TaskID] = {}
        self._listeners: list[OnProgress] = []
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

    def begin(self, job: Job[Any], number: int, total: int) -> None:
        if number == 0:
            self.done = 0
            self._progress.reset(self._all)
        self.total = total
        self._progress.update(self._all, total=total, visible=total > 1)
        self._tasks[job.name] = self._progress.add_task(job.label, total=None, note="", visible=False)

    def update(self, job: Job[Any], progress: Progress) -> None:
        for listener in self._listeners:
            listener(progress)
        if job.name in self._tasks:
            task = self._tasks[job.name]
            self._progress.update(
                task, completed=progress.done, total=progress.total, note=_note(progress), visible=True
            )

    def end(self, job: Job[Any], reused: bool) -> None:
        self._remove(job)
        self.reused += reused
        if not self.live and not reused:
            self.note(f"[{self.done}/{self.total}] {job.label}")

    def failed(self, job: Job[Any], reason: str) -> None:
        self._remove(job)
        self.note(f"failed: {reason}")

    def note(self, text: str) -> None:
        self.console.print(printable(text), soft_wrap=not self.live)

    def _remove(self, job: Job[Any]) -> None:
        self.done += 1
        self._progress.advance(self._all)
        task = self._tasks.pop(job.name, None)
        if task is not None:
            self._progress.remove_task(task)


def _note(progress: Progress) -> str:
    if progress.robust is not None:
        return f"examples, {progress.robust} still robust"
    return "steps  " + "  ".join(f"{name} {value:.3f}" for name, value in progress.values.items())


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
