"""Adversarial training's inner attack, written down once more: PGD on the cross-entropy in the Linf ball."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.base import keyed_random
from transferbench.methods import Batch


def pgd_points(model: nn.Module, batch: Batch, eps: float, k: int, step: float) -> Tensor:
    """The end points of k steps of `step` (a share of eps) from a keyed uniform start; `model` is in eval mode."""
    assert not model.training
    start = batch.x + eps * (2 * keyed_random.uniform(batch.noise, tuple(batch.x.shape[1:])) - 1)
    x = start.clamp(0, 1)
    for _ in range(k):
        x = x.detach().requires_grad_()
        gradient = torch.autograd.grad(F.cross_entropy(model(x), batch.y, reduction="sum"), x)[0]
        x = (x.detach() + step * eps * gradient.sign()).clamp(batch.x - eps, batch.x + eps).clamp(0, 1)
    return x.detach()
