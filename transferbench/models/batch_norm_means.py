"""Tells which activation a network was trained with from the running means of its batch norms.

A file of weights does not name activations. But where a batch norm, an activation and a convolution are followed by a
batch norm, the second one's running mean is the convolution of the mean activation, and the first one's bias and scale
are the mean and the deviation of what goes into the activation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch
from torch import Tensor, nn

_NUM_BATCHES = 100
"""Batches after which running means (momentum .1) have forgotten their initial zeros."""
_FITS, _BETTER = 0.6, 3.0
"""Another activation is named where its error is below the first and that of one's own is larger by the second factor.

Of the ResNet-18 of the reference AutoAttack package, trained with ReLU, the errors of its eight blocks have the median
0.18 for ReLU and 14 for softplus.
"""
_ALIKE = 1.5
"""Activations whose error is below the smallest times this are not told apart."""

Block = tuple[nn.BatchNorm2d, nn.Conv2d, nn.BatchNorm2d]


def activations_of(
    blocks: Sequence[Block], candidates: Mapping[str, Callable[[Tensor], Tensor]], own: str
) -> list[str]:
    """The candidates that may have made the running means of the blocks' second batch norms, the best first: `own`
    alone unless another fits clearly better.

    The means of a network that was trained for less than 100 batches, or not at all, say nothing.
    """
    errors = {name: _error(blocks, function) for name, function in candidates.items()}
    best = min(errors, key=lambda name: errors[name])
    if errors[best] >= min(_FITS, errors[own] / _BETTER):
        return [own]
    return [name for name in sorted(errors, key=lambda name: errors[name]) if errors[name] <= _ALIKE * errors[best]]


def _error(blocks: Sequence[Block], activation: Callable[[Tensor], Tensor]) -> float:
    """The median over the blocks of the relative error of the predicted running means."""
    errors = []
    for before, convolution, after in blocks:
        observed, batches = after.running_mean, after.num_batches_tracked
        # Files of old versions have no counter: it is 0.
        if observed is None or batches is None or 0 < int(batches) < _NUM_BATCHES or not bool(observed.any()):
            continue
        predicted = convolution.weight.detach().double().sum((2, 3)) @ _mean(before, activation)
        errors.append(float((predicted - observed.double()).norm() / observed.double().norm()))
    return median(errors) if errors else 0.0


def _mean(before: nn.BatchNorm2d, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean activation of each channel [C], for inputs of a normal distribution."""
    points = torch.linspace(-6, 6, 601, dtype=torch.float64)
    density = torch.exp(-points.square() / 2)
    inputs = before.bias.detach().double()[:, None] + before.weight.detach().double().abs()[:, None] * points
    return (activation(inputs) * (density / density.sum())).sum(1)
