"""Logits and input gradients of a network on a probe, by which networks are compared."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def outputs(network: Callable[[Tensor], Tensor], probe: Tensor) -> tuple[Tensor, Tensor]:
    """(logits [B, C], input gradient [B, ...] of their sum with fixed unequal weights)."""
    with torch.enable_grad():
        point = probe.detach().clone().requires_grad_()
        output = network(point)
        weights = torch.linspace(-1, 1, output.shape[1], device=output.device)
        (gradient,) = torch.autograd.grad((output * weights).sum(), point)
    return output.detach(), gradient
