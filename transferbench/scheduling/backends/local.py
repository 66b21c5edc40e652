"""This process as the only worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from transferbench.base.errors import FaultError, InputError
from transferbench.base.progress import Progress
from transferbench.jobs.evaluation import BatchDependentError
from transferbench.jobs.execution import execute
from transferbench.jobs.inputs import Input
from transferbench.jobs.resources import Resources
from transferbench.scheduling.backends import Answer, Backend, Task
from transferbench.store.store import Store


class LocalBackend(Backend):
    """Runs tasks lazily, in `next`. They checkpoint into the store."""

    def __init__(self, resources: Resources, store: Store, on_progress: Callable[[str, Progress], None]) -> None:
        self.resources, self.store, self.on_progress = resources, store, on_progress
        self._tasks: deque[Task] = deque()

    @property
    def workers(self) -> int:
        return 1

    @property
    def capacity(self) -> int:
        return 1 - len(self._tasks)

    def submit(self, task: Task, shared: Mapping[Input, Any]) -> None:
        self._tasks.append(task)

    def next(self) -> Answer:
        task = self._tasks.popleft()
        job, checkpoint = task.job, self.store.checkpoint(task.key)
        try:
            output = execute(
                job, self.resources, task.results, lambda progress: self.on_progress(job.name, progress), checkpoint
            )
        except (FaultError, InputError, BatchDependentError) as error:
            return Answer(job.name, None, error)
        return Answer(job.name, output)

    @property
    def ready(self) -> bool:
        return False

    def share(self, value: Any) -> Any:
        return value

    def __exit__(self, *_: object) -> None:
        self._tasks.clear()
