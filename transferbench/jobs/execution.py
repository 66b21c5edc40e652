"""Running one job in one process, with its wall time, memory and hardware."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.errors import FaultError
from transferbench.base.progress import OnProgress, ignore
from transferbench.base.results import Execution
from transferbench.engine.memory import is_out_of_memory
from transferbench.jobs.inputs import MissingInputError
from transferbench.jobs.job import Job, Output, Results
from transferbench.jobs.resources import Resources


def execute(
    job: Job[Any],
    resources: Resources,
    results: Results,
    on_progress: OnProgress = ignore,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Output:
    """The job's output. Raises what the job raises; FaultError where memory does not suffice."""
    began = time.perf_counter()
    try:
        output = job.run(resources, results, on_progress, checkpoint)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, FaultError) or not is_out_of_memory(error):
            raise
        raise FaultError(
            f"{job.label}: out of memory: set {job.memory_option} lower ({str(error).splitlines()[0]})"
        ) from None
    execution = Execution(
        time.perf_counter() - began,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        hardware(resources.device),
    )
    return output._replace(result=replace(output.result, execution=execution))


def check_inputs(job: Job[Any], resources: Resources, content: Mapping[str, Any], results: Results) -> None:
    """MissingInputError where an input that this process reads is not the one that the driver's key names.

    What the driver has shared is what it named, also where it names it otherwise (evaluate(store=)).
    """
    for need in job.needs(resources, content, results):
        if need.expected is None or resources.is_shared(need.input):
            continue
        if need.input.fingerprint(resources) != need.expected:
            raise MissingInputError(need.input)


@cache
def hardware(device: str) -> str:
    """The GPU's name, or the processor's and torch's threads."""
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, TF32 off, deterministic convolutions"
    name = "CPU"
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {torch.get_num_threads()} thread(s)"
