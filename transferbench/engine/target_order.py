"""MALT's order of target classes: the nearest first, if the network were linear around the image.

A class c is z_y - z_c over the dual norm of the gradient of z_y - z_c away, under the threat's norm; AutoAttack takes
the classes by their logits alone. Only the classes of the largest logits are looked at, and each costs a backward pass
per example.

Paper: Melamed et al. 2024 (arXiv:2407.02240), 100 classes looked at.
Deviations: the paper's code could not be had; the length of the gradient is the dual norm of the threat, which is the
distance under it (the Euclidean norm in L2).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from transferbench.attacks import losses
from transferbench.engine.judge import at_least
from transferbench.threats import LpBall

CANDIDATES = 100
"""Classes that are looked at."""


def candidates(num_classes: int) -> int:
    """How many classes are looked at: backward passes per example."""
    return min(num_classes - 1, CANDIDATES)


def malt_scores(network: Callable[[Tensor], Tensor], ball: LpBall, x: Tensor, y: Tensor, floor: int) -> Tensor:
    """[B, C]: scores in whose descending order the label comes first, then MALT's targets, then the other classes by
    their logits. Batches are padded to `floor` rows."""
    n = len(x)
    labels = at_least(y, floor)
    with torch.enable_grad():
        point = at_least(x, floor).detach().requires_grad_()
        logits = network(point)
        others = logits.detach().scatter(1, labels[:, None], -float("inf"))
        by_logit = others.argsort(dim=1, descending=True)
        count = candidates(logits.shape[1])
        distances = []
        for rank in range(count):
            margin = losses.of_class(logits, labels) - losses.of_class(logits, by_logit[:, rank])
            gradient = torch.autograd.grad(margin.sum(), point, retain_graph=rank + 1 < count)[0]
            distances.append(margin.detach() / ball.dual_norm(gradient).clamp(min=1e-12))
    nearest = torch.stack(distances, 1).argsort(dim=1)
    order = torch.cat([labels[:, None], by_logit[:, :count].gather(1, nearest), by_logit[:, count:-1]], 1)
    positions = torch.arange(order.shape[1], device=x.device, dtype=logits.dtype).expand_as(order)
    return torch.empty_like(positions).scatter(1, order, -positions)[:n]
