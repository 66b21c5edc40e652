"""Where jobs are carried out: in this process, one after the other, or on the workers of a cluster."""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager
from typing import Any, Protocol

from transferbench.base.errors import FaultError, InputError
from transferbench.jobs.executor import Executor, Need
from transferbench.jobs.job import Job
from transferbench.scheduling.backends.dask import Answer, Cluster
from transferbench.scheduling.backends.worker import Task, carry_out
from transferbench.store.store import Store


class Reporter(Protocol):
    """Who shows progress. `update` is called often, and from other threads: (done, of, still robust or None)."""

    def begin(self, job: Job, number: int, total: int) -> None: ...
    def update(self, job: Job, done: int, total: int, robust: int | None) -> None: ...
    def end(self, job: Job, reused: bool) -> None: ...
    def failed(self, job: Job, reason: str) -> None: ...
    def note(self, text: str) -> None: ...


class Here(AbstractContextManager["Here"]):
    """This process as the only worker: what it is given runs when its answer is asked for."""

    topic = ""
    finished = False
    """Nothing is done that was not asked for."""

    def __init__(self, executor: Executor, store: Store, reporter: Reporter) -> None:
        self.executor, self.store, self.reporter = executor, store, reporter
        self._tasks: deque[Task] = deque()

    @property
    def room(self) -> int:
        return 1 - len(self._tasks)

    def give(self, task: Task, lent: dict[Need, Any]) -> None:
        self._tasks.append(task)

    def share(self, thing: Any) -> Any:
        return thing

    def next(self) -> Answer:
        task = self._tasks.popleft()
        job, checkpoint = task.job, self.store.checkpoint(task.key)
        try:
            value = self.executor.execute(
                job, task.inputs, task.content, lambda *how: self.reporter.update(job, *how), checkpoint
            )
        except (FaultError, InputError) as error:
            return Answer(job.name, None, error, "")
        return Answer(job.name, value, None, "")

    def __exit__(self, *_: object) -> None:
        self._tasks.clear()


class There(Cluster):
    """The workers of a cluster."""

    def give(self, task: Task, lent: dict[Need, Any]) -> None:
        self.submit(task.job.name, carry_out, task, lent)
