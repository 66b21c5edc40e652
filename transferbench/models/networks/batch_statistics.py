"""Any network whose batch norms use the statistics of the batch in eval mode too: `batch-statistics:<network>`.

IGAM's code builds students and fine-tuned teachers in train mode, also when it attacks and scores them (in batches of
100). The weights, and their names, are those of the inner network, so that one file can be loaded either way; running
statistics are kept and not used. In train mode nothing is different.

The answer to an image then depends on the rest of its batch: results belong to one batch size and one order, and carry
the flag `mixes-rows` (engine/row_independence.py). It is a property of the network and therefore on the victim's card;
an option of an evaluation could be forgotten between two measurements of one victim.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferbench.base.errors import InputError
from transferbench.models import networks
from transferbench.models.networks import Built

IDS = {"batch-statistics": "batch-statistics:<network>, any network that is evaluated on each batch's own statistics"}


class BatchNorm1dOfBatch(nn.BatchNorm1d):
    """Batch norm of [B, C] or [B, C, L]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else _normalised(self, x)


class BatchNorm2dOfBatch(nn.BatchNorm2d):
    """Batch norm of [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else _normalised(self, x)


def _normalised(norm: _BatchNorm, x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)


def build(id: str, num_classes: int) -> Built:
    """The inner network with its batch norms replaced. InputError where it has none, or of another kind."""
    built = networks.build(id.partition(":")[2], num_classes)
    norms = {name: module for name, module in built.model.named_modules() if isinstance(module, _BatchNorm)}
    if not norms:
        raise InputError(f"network {id}: it has no batch norm")
    for name, norm in norms.items():
        parent, _, attribute = name.rpartition(".")
        setattr(built.model.get_submodule(parent) if parent else built.model, attribute, _of_batch(id, name, norm))
    return built


def _of_batch(id: str, name: str, norm: _BatchNorm) -> nn.Module:
    """The batch norm that is used instead, with the same state."""
    if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d):
        raise InputError(f"network {id}: {name} is {type(norm).__name__}, which has no form for a batch's statistics")
    kind = BatchNorm1dOfBatch if isinstance(norm, nn.BatchNorm1d) else BatchNorm2dOfBatch
    new = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    new.load_state_dict(norm.state_dict())
    return new


def unstated(id: str) -> str:
    """What the inner network's id leaves open."""
    return networks.unstated(id.partition(":")[2])


def check_loaded(id: str, model: nn.Module, name: str) -> None:
    """The inner network's check of its weights."""
    networks.check_loaded(id.partition(":")[2], model, name)
