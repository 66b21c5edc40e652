"""LwF robust transfer: keep the robust source's penultimate features while training on clean images.

Batch norm runs on the source's statistics throughout (the code builds the net in eval mode), without augmentation.

Paper: Shafahi et al. 2020, "Adversarially robust transfer learning" (arXiv:1905.08232), RobustTransferLWF.
Loss: CE + lambda_d times the mean over the batch of ||z(x; theta) - z(x; theta_source)||_1, z being the penultimate
features.
Phases: two halves (or `warm_steps` and the rest): the new head alone (the penalty is zero there), then all weights with
a fresh optimiser.
Options: `distance=l2` is the paper's text; the code's l1 is the default.
Deviations: the source's features are computed with each batch instead of being looked up in a cache whose name does not
know the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from transferbench.base.errors import InputError
from transferbench.methods import Batch, Network, NotNegative, Phase, Positive, probe
from transferbench.models.features import record_features

VERSION = 2


@dataclass(frozen=True)
class Params(probe.Params):
    """config.json of the code: 20000 steps, feat_sim .005; batch, rates and weight decay as for the probe.

    `warm_lr` is the learning rate of the head phase (the code uses the same in both), `warm_steps` its length
    (warmstart_step); 0 is half of the steps.
    """

    steps: Positive = 20_000
    augment: Literal["auto", "none", "crop-flip", "resized-crop-flip"] = "none"
    feat_sim: NotNegative = 0.005
    distance: Literal["l1", "l2"] = "l1"
    warm_lr: NotNegative = 1e-3
    warm_steps: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        """InputError where the head phase is longer than the training."""
        if self.warm_steps > self.steps:
            raise InputError(f"warm_steps={self.warm_steps}: the head phase is a part of all {self.steps} steps")


class Method(probe.Method):
    """A linear probe first, then fine-tuning with a penalty on the distance of the penultimate features."""

    params: Params
    extends = "finetune"

    @property
    def passes_per_step(self) -> float:
        return 4 / 3

    def phases(self) -> list[Phase]:
        params = self.params
        warm = params.warm_steps or params.steps // 2
        return [
            Phase("head", warm, params.warm_lr, params.schedule, lambda name: name.startswith(self.head)),
            Phase("all", params.steps - warm, params.lr, params.schedule),
        ]

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        assert source is not None
        # The input of the source's head, also where the student's head has hidden layers.
        head = source.layers.head
        with record_features(student.model, source.layers) as student_features:
            logits = student.model(batch.x)
        with torch.no_grad(), record_features(source.model, source.layers) as source_features:
            source.model(batch.x)
        change = student_features.penultimate[head] - source_features.penultimate[head]
        size = change.abs() if self.params.distance == "l1" else change.square()
        return {
            "ce": self.cross_entropy(logits, batch.y),
            "features": self.params.feat_sim * size.flatten(1).sum(1).mean(),
        }
