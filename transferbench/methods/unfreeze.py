"""Incremental unfreezing: a new head and the last k blocks of the source trained on clean target images.

The fewer blocks are trained, the more robustness is kept. Blocks are counted from the end: 1 is what follows the last
stage (final batch norm and head), 2 adds the last unit of the last stage, and so on; what precedes the first stage
comes last. The paper's WRN-32-10 has 17.

Paper: the study in LwF's paper (Shafahi et al. 2020, arXiv:1905.08232).
Loss: CE.
Phases: one, the last `blocks` blocks; batch norm frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from transferbench.base.errors import InputError
from transferbench.base.schedules import Schedule
from transferbench.methods import BaseMethod, BaseParams, Decay, Network, NotNegative, Padding, Phase, Positive
from transferbench.models.features import submodule

VERSION = 2

NEEDS = {"unfreeze": "named stages"}


@dataclass(frozen=True)
class Params(BaseParams):
    """20000 steps of momentum SGD, lr .001; batch, weight decay, crops and frozen running statistics as LwF's."""

    steps: Positive = 20_000
    batch_size: Positive = 128
    lr: NotNegative = 1e-3
    weight_decay: NotNegative = 2e-4
    schedule: Schedule = "constant"
    decay: Decay = "weights"
    crop_padding: Padding = 2
    blocks: Positive = 1
    freeze_bn: Literal["none", "stats", "affine", "both"] = "stats"


class Method(BaseMethod[Params]):
    """Trains the parameters named in `trained`, those of the last blocks."""

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        student = super().student(source, fresh, num_classes)
        all_blocks = blocks(student)
        if self.params.blocks > len(all_blocks):
            raise InputError(f"unfreeze: blocks={self.params.blocks}, this network has {len(all_blocks)}")
        self.trained = {name for block in all_blocks[: self.params.blocks] for name in block}
        return student

    def phases(self) -> list[Phase]:
        params = self.params
        trained = self.trained
        return [Phase("last blocks", params.steps, params.lr, params.schedule, lambda name: name in trained)]


def blocks(network: Network) -> list[list[str]]:
    """The parameters' names by block, the last block first. InputError for a network without stages."""
    names = [name for name, _ in network.model.named_parameters()]
    if not network.layers.stages:
        raise InputError("unfreeze needs the stages of the source network, and this one names none")
    units = [unit for stage in network.layers.stages for unit in _units(network.model, stage)]
    by_unit = [[name for name in names if name.startswith(f"{unit}.")] for unit in units]
    inside = {name for block in by_unit for name in block}
    first = min(names.index(name) for name in inside)
    before = [name for name in names[:first] if name not in inside]
    after = [name for name in names[first:] if name not in inside]
    return [block for block in (after, *reversed(by_unit), before) if block]


def _units(model: nn.Module, stage: str) -> list[str]:
    """The children of a sequential stage, or the stage itself."""
    module = submodule(model, stage)
    if isinstance(module, nn.Sequential):
        return [f"{stage}.{name}" for name, _ in module.named_children()]
    return [stage]
