"""Probing: a new head, linear or with hidden layers, trained on clean target images on the source's frozen features.

Paper: Shafahi et al. 2020 (arXiv:1905.08232), steps 1 to 10000 of LwF's code.
Loss: CE.
Phases: one, the head alone; batch norm frozen.
Presets: `slf` is RobustSSL's standard linear fine-tuning, whose data keep no validation images.
Options: `hidden=512,256`, `head_bn` and `head_dropout` give the head hidden layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from transferbench.base.schedules import Schedule
from transferbench.methods import BaseMethod, BaseParams, Decay, Network, NotNegative, Padding, Phase, Positive
from transferbench.models import heads

VERSION = 2

IDS = {"slf": "SLF of RobustSSL: probe from a zero head, on the frozen network"}
PRESETS = {
    # CIFAR-10 from a ResNet-18 of 32x32: 25 epochs of 98 batches of 512, a tenth after epochs 10 and 20; CIFAR-100 has
    # lr .05, STL-10 at 96 pixels .1.
    "slf": {
        "steps": 2450,
        "batch_size": 512,
        "lr": 0.01,
        "schedule": "piecewise-10-10-5",
        "decay": "all",
        "crop_padding": 4,
        "partial_batches": True,
        "head_init": "zero",
        "new_head": "yes",
    }
}


@dataclass(frozen=True)
class Params(BaseParams):
    """Steps 1..10000 of LwF's code (Shafahi et al. 2020, arXiv:1905.08232): SGD with momentum .9, lr .001, batch 128,
    weight decay on convolutions and linear layers alone; its loader pads crops by 2.

    `hidden` is a comma-separated list of the widths of hidden layers, as in the paper's low-data study; empty for a
    linear head. With `head_bn` batch norm follows each of them, with `head_dropout` dropout of that probability.
    """

    steps: Positive = 10_000
    batch_size: Positive = 128
    lr: NotNegative = 1e-3
    weight_decay: NotNegative = 2e-4
    schedule: Schedule = "constant"
    decay: Decay = "weights"
    crop_padding: Padding = 2
    freeze_bn: Literal["none", "stats", "affine", "both"] = "stats"
    hidden: Annotated[str, Field(pattern=r"^([1-9]\d*(,[1-9]\d*)*)?$")] = ""
    head_bn: bool = False
    head_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Method(BaseMethod[Params]):
    """Trains the new head only; `head` is the prefix of its parameters' names."""

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.can_keep_head = not params.hidden

    def network(self, source: str, requested: str) -> str:
        params, source = self.params, source or requested
        if not params.hidden:
            return source
        dropout = f"+dropout{params.head_dropout:f}".rstrip("0") if params.head_dropout else ""
        return f"mlp-head:{params.hidden}{'+bn' if params.head_bn else ''}{dropout}:{source}"

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        assert source is not None
        params = self.params
        self.head = f"{source.layers.head}."
        if not params.hidden:
            return super().student(source, fresh, num_classes)
        model = copy.deepcopy(source.model).requires_grad_(True)
        hidden = [int(width) for width in params.hidden.split(",")]
        layers = heads.mlp(model, source.layers, num_classes, hidden, params.head_bn, params.head_dropout)
        return Network(model, layers)

    def in_head(self, student: Network, name: str) -> bool:
        return not self.keeps_head and name.startswith(self.head)

    def phases(self) -> list[Phase]:
        params = self.params
        return [Phase("head", params.steps, params.lr, params.schedule, lambda name: name.startswith(self.head))]
