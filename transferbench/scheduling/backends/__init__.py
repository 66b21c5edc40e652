"""Where jobs run. `Backend` is the interface: this process (local.py) or dask workers (dask.py)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from transferbench.base.settings import RunSettings
from transferbench.jobs.inputs import Input
from transferbench.jobs.job import Job, Output, Results


@dataclass(frozen=True)
class Task:
    """A job with everything a process needs to run it. `versions` are the driver's packages."""

    job: Job[Any]
    key: str
    content: Mapping[str, Any]
    results: Results
    settings: RunSettings
    versions: Mapping[str, str]


class Answer(NamedTuple):
    """What became of a task: its output, or the exception it raised, or the reason why no worker survived it."""

    name: str
    output: Output | None
    error: BaseException | None = None
    lost: str = ""


class Backend(AbstractContextManager["Backend"], Protocol):
    """Runs tasks. A context manager: whatever it started is ended with it."""

    @property
    def workers(self) -> int:
        """How many tasks run at once."""

    @property
    def capacity(self) -> int:
        """How many more tasks are worth submitting now."""

    def submit(self, task: Task, shared: Mapping[Input, Any]) -> None:
        """Run a task. `shared` are handles of inputs that workers could not read themselves."""

    def next(self) -> Answer:
        """The answer that is ready first; waits for it."""

    @property
    def ready(self) -> bool:
        """Whether `next` has an answer without waiting."""

    def share(self, value: Any) -> Any:
        """A handle of a value, which travels to each worker at most once."""
