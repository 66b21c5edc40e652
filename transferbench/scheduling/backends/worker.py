"""What a cluster's worker does with a job: carry it out, tell how far it is, and stop when nobody wants it any more."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from transferbench.base.errors import FaultError
from transferbench.base.versions import versions
from transferbench.jobs.executor import Executor, Need, Place, Result
from transferbench.jobs.job import Job
from transferbench.store.checkpoint_file import Checkpoint

_TELL = 0.5
"""Seconds between two messages to the driver."""

_executors: dict[str, Executor] = {}
"""That of the present run, by its topic. A worker may serve many runs, and files may change between them."""


@dataclass(frozen=True)
class Task:
    """A job with all that a process elsewhere must know to carry it out."""

    job: Job
    key: str
    inputs: dict[str, Result]
    content: dict[str, Any]
    place: Place
    topic: str
    versions: dict[str, str]


class UnwantedError(Exception):
    """The driver has gone, or has taken the job back."""


def carry_out(task: Task, lent: Mapping[Need, Any]) -> tuple[Result, dict[str, Tensor]]:
    """As `Executor.execute`. FaultError where this worker's packages are others than the driver's."""
    from distributed import get_worker

    mine = versions()
    other = [f"{name} {version}, here {mine[name]}" for name, version in task.versions.items() if mine[name] != version]
    if other:
        told = ", ".join(other)
        raise FaultError(f"the driver has {told}: install the same on every worker")
    worker: Any = get_worker()
    if worker.state.nthreads != 1:
        raise FaultError(f"worker {worker.address} has {worker.state.nthreads} threads: start it with --nthreads 1")
    if task.topic not in _executors:
        _executors.clear()
        _executors[task.topic] = Executor(task.place, remote=True)
    me, last = worker.get_current_task(), [0.0]

    def show(done: int, total: int, robust: int | None) -> None:
        if time.monotonic() - last[0] < _TELL:
            return
        last[0] = time.monotonic()
        # A task that was taken back goes on in its thread unless it looks.
        mine = worker.state.tasks.get(me)
        if mine is None or mine.state in ("cancelled", "released"):
            raise UnwantedError(task.job.label)
        worker.log_event(task.topic, {"job": task.job.name, "done": done, "total": total, "robust": robust})

    checkpoint = Checkpoint(_unfinished(task, worker) / task.key)
    return _executors[task.topic].execute(task.job, task.inputs, task.content, show, checkpoint, lent)


def _unfinished(task: Task, worker: Any) -> Path:
    """Where the run's folder is visible, unfinished work outlives this worker; else it outlives only the job."""
    shared = task.place.root / "unfinished"
    return shared if shared.is_dir() else Path(worker.local_directory) / "unfinished"
