"""A dask worker's end: run a task, report progress, and stop when the driver no longer wants the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transferbench.base.errors import FaultError
from transferbench.base.progress import Progress
from transferbench.base.versions import versions
from transferbench.jobs.inputs import Input
from transferbench.jobs.job import Output
from transferbench.jobs.resources import Resources
from transferbench.scheduling.backends import Task, task_run
from transferbench.store.checkpoint_file import CheckpointFile

_INTERVAL = 0.5
"""Seconds between two progress messages to the driver."""

_resources: dict[str, Resources] = {}
"""Those of the present run, by its topic. A worker may serve many runs, and files may change between them."""


class CancelledError(Exception):
    """The driver is gone, or has taken the task back."""


def run_task(task: Task, shared: Mapping[Input, Any], topic: str) -> Output:
    """As `task_run.run`. FaultError where this worker's packages differ from the driver's, MissingInputError where
    it cannot read an input."""
    from distributed import get_worker

    mine = versions()
    different = [
        f"{name} {version}, here {mine[name]}" for name, version in task.versions.items() if mine[name] != version
    ]
    if different:
        raise FaultError(f"the driver has {', '.join(different)}: install the same on every worker")
    worker: Any = get_worker()
    if worker.state.nthreads != 1:
        raise FaultError(f"worker {worker.address} has {worker.state.nthreads} threads: start it with --nthreads 1")
    if topic not in _resources:
        _resources.clear()
        _resources[topic] = Resources(task.settings, remote=True)
    resources = _resources[topic]
    task_key, last = worker.get_current_task(), [0.0]

    def report(progress: Progress) -> None:
        if time.monotonic() - last[0] < _INTERVAL:
            return
        last[0] = time.monotonic()
        # A task that was taken back goes on in its thread unless it notices.
        state = worker.state.tasks.get(task_key)
        if state is None or state.state in ("cancelled", "released"):
            raise CancelledError(task.job.label)
        values = {"done": progress.done, "total": progress.total, "robust": progress.robust}
        worker.log_event(topic, {"job": task.job.name, "values": dict(progress.values), **values})

    checkpoint = CheckpointFile(_unfinished(task, worker) / task.key)
    return task_run.run(task, resources, shared, report, checkpoint)


def message(event: Mapping[str, Any]) -> tuple[str, Progress]:
    """(job's name, progress) of a message as the driver receives it."""
    return event["job"], Progress(event["done"], event["total"], event["robust"], event["values"])


def _unfinished(task: Task, worker: Any) -> Path:
    """Where the worker sees the run's folder, unfinished work outlives it; elsewhere it outlives only the task."""
    shared = task.settings.root / "unfinished"
    return shared if shared.is_dir() else Path(worker.local_directory) / "unfinished"
