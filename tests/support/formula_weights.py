"""Weights and an image from formulas, so that another code's output for them is a few numbers in a test."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def numbers(state: dict[str, Tensor], shift: float = 0.0) -> dict[str, Tensor]:
    """A state dict with cosines for weights, by the position of each tensor; `shift` moves them all."""
    made = {}
    for position, (name, tensor) in enumerate(state.items()):
        wave = torch.cos(1.7 * torch.arange(tensor.numel(), dtype=torch.float64) + position + shift)
        if not tensor.is_floating_point():
            made[name] = tensor
            continue
        if name.endswith("running_var"):
            wave = 1 + 0.5 * wave
        elif tensor.dim() > 1:
            wave *= math.sqrt(2 * tensor.shape[0] / tensor.numel())
        else:
            wave = 1 + 0.3 * wave if name.endswith("weight") else 0.2 * wave
        made[name] = wave.view(tensor.shape).to(tensor.dtype)
    return made


def picture(side: int = 64, shift: float = 0.0) -> Tensor:
    """An image [1, 3, side, side] in [0,1]."""
    index = torch.arange(3 * side * side, dtype=torch.float64)
    return (0.5 + 0.5 * torch.cos(0.37 * index + 0.001 * index**2 + shift)).float().view(1, 3, side, side)
