"""Running a task in a worker process, whichever backend started it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transferbench.base.checkpoint import Checkpoint
from transferbench.base.progress import OnProgress
from transferbench.jobs.execution import check_inputs, execute
from transferbench.jobs.inputs import Input
from transferbench.jobs.job import Output
from transferbench.jobs.resources import Resources
from transferbench.scheduling.backends import Task


def run(
    task: Task, resources: Resources, shared: Mapping[Input, Any], report: OnProgress, checkpoint: Checkpoint
) -> Output:
    """The task's output, with its tensors on the CPU. MissingInputError where this process cannot read an input, or
    reads another than the driver's key names; `shared` are those that the driver has sent."""
    with resources.sharing(shared):
        check_inputs(task.job, resources, task.content, task.results)
        output = execute(task.job, resources, task.results, report, checkpoint)
    return output._replace(tensors={name: tensor.cpu() for name, tensor in output.tensors.items()})
