"""DELTA without attention: keep the source's feature maps stage by stage, as Renofeation's baseline does.

Chin et al. 2020 (arXiv:2002.02998), after Li et al. 2019 (arXiv:1901.09229):

    CE + beta/2 * ||head||^2 + lambda_f * sum over stages of mean (F_student - F_source)^2

The mean is over all elements; the original DELTA weights channels by attention, this code does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.features import tap
from transferbench.methods import BaseMethod, BaseParams, Batch, Network, NotNegative
from transferbench.types import InputError

VERSION = 1


@dataclass(frozen=True)
class Params(BaseParams):
    """DELTA.sh for Flower102: lr .005, weight decay 1e-4, lambda_f .1; beta .01 always."""

    lr: NotNegative = 5e-3
    feat_lmda: NotNegative = 0.1
    beta: NotNegative = 1e-2


class Method(BaseMethod[Params]):
    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        if source is not None and not source.layers.stages:
            raise InputError("delta needs the stages of the source network, and this one names none")
        return super().student(source, fresh, num_classes)

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        assert source is not None
        with tap(student.model, student.layers, student.layers.stages) as mine:
            logits = student.model(batch.x)
        with torch.no_grad(), tap(source.model, source.layers, source.layers.stages) as theirs:
            source.model(batch.x)
        apart = [F.mse_loss(mine.stages[name], theirs.stages[name]) for name in student.layers.stages]
        return {
            "ce": self.cross_entropy(logits, batch.y),
            "head": 0.5 * self.params.beta * linear_norm(student.model),
            "features": self.params.feat_lmda * torch.stack(apart).sum(),
        }


def linear_norm(model: nn.Module) -> Tensor:
    """The sum of squares of the weights and biases of all linear layers."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return torch.stack([parameter.square().sum() for module in linear for parameter in module.parameters()]).sum()
