"""The variables of Madry's WRN-32-10 in TensorFlow, as Madry's challenge, LwF, Free AT and IGAM name them.

`input/init_conv/DW`, `unit_<stage>_<unit>/...`, `unit_last/BatchNorm/...`, `logit/DW`; IGAM's students have
`classifier/` before all of them, its teachers a second head `target_task_logit/`. TensorFlow's kernels are [height,
width, in, out], its matrices [in, out].
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from transferbench.base.errors import InputError
from transferbench.models.weights.tf1.checkpoint import TensorFlowCheckpoint

STAGES, UNITS = 3, 5
_BATCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_MOVING = ("moving_mean", "moving_variance")


def names(head: str) -> Iterator[tuple[str, str]]:
    """(name of the parameter here, name of the variable)."""
    yield "conv1.weight", "input/init_conv/DW"
    for stage in range(1, STAGES + 1):
        for unit in range(UNITS):
            here, there = f"stage{stage}.{unit}", f"unit_{stage}_{unit}"
            first = "shared_activation" if (stage, unit) == (1, 0) else "residual_only_activation"
            yield from _norm(f"{here}.bn1", f"{there}/{first}")
            yield f"{here}.conv1.weight", f"{there}/sub1/conv1/DW"
            yield from _norm(f"{here}.bn2", f"{there}/sub2")
            yield f"{here}.conv2.weight", f"{there}/sub2/conv2/DW"
    yield from _norm("bn", "unit_last")
    yield "head.weight", f"{head}/DW"
    yield "head.bias", f"{head}/biases"


def _norm(here: str, there: str) -> Iterator[tuple[str, str]]:
    for name, variable in _BATCH_NORM.items():
        yield f"{here}.{name}", f"{there}/BatchNorm/{variable}"


def heads(checkpoint: TensorFlowCheckpoint) -> list[str]:
    """The classifiers that a checkpoint has, `logit`, `target_task_logit`, with what stands before them."""
    found = [name.removesuffix("/DW") for name in checkpoint.variables if name.endswith("logit/DW")]
    return sorted(found)


def state_dict(checkpoint: TensorFlowCheckpoint, head: str, has_statistics: bool = True) -> dict[str, Tensor]:
    """The parameters and running statistics by their names here, float32, with the classifier `head`.

    InputError for a variable that is missing or has another shape's number of dimensions. Without statistics
    (`has_statistics=False`, for networks on batch statistics) running means are 0 and variances 1.
    """
    scope = head.rpartition("/")[0]
    before = f"{scope}/" if scope else ""
    state: dict[str, Tensor] = {}
    for here, there in names(head.rpartition("/")[2]):
        name = f"{before}{there}"
        moving = there.rpartition("/")[2] in _MOVING
        if name not in checkpoint.variables and moving:
            if has_statistics:
                raise InputError(
                    f"checkpoint {checkpoint.prefix}: there is no {name}: it was saved without the running "
                    "statistics of batch norm, as IGAM saves its fine-tuned teachers: --network "
                    "batch-statistics:madry-wrn-32-10 evaluates it as that code does"
                )
            size = checkpoint.variables[f"{before}{there.rpartition('/')[0]}/gamma"].shape
            state[here] = torch.zeros(size) if there.endswith("moving_mean") else torch.ones(size)
            continue
        state[here] = _tensor(checkpoint, name, 4 if "conv" in here else 2 if here == "head.weight" else 1)
    return state


def _tensor(checkpoint: TensorFlowCheckpoint, name: str, dimensions: int) -> Tensor:
    value = checkpoint.read(name)
    if value.ndim != dimensions or value.dtype.kind != "f":
        raise InputError(f"checkpoint {checkpoint.prefix}: {name} is {value.dtype} {value.shape}: no weight of it")
    order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[dimensions]
    return torch.from_numpy(np.array(value.transpose(order), dtype=np.float32, order="C"))
