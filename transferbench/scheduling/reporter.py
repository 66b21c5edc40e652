"""The interface that displays progress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from transferbench.base.progress import Progress
from transferbench.jobs.job import Job


class Reporter(Protocol):
    """Gets every event of a run. `update` is called often, and from other threads."""

    def plan(self, jobs: Sequence[Job[Any]], workers: int) -> None:
        """A run of these jobs begins, so many at once; some may be finished already."""

    def begin(self, job: Job[Any], number: int, total: int) -> None:
        """A job is about to be looked up or started; `number` counts from 0 in the plan's order."""

    def start(self, job: Job[Any]) -> None:
        """A job that is not finished goes to the backend; its inputs are ready."""

    def update(self, job: Job[Any], progress: Progress) -> None:
        """Part of a job is done."""

    def end(self, job: Job[Any], seconds: float | None) -> None:
        """A job has its result, which took so many seconds of a worker; None: an earlier run had finished it."""

    def failed(self, job: Job[Any], reason: str) -> None:
        """A job has failed, or was not run because one of its inputs has."""

    def note(self, text: str) -> None:
        """A line for the user."""
