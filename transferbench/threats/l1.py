"""The L1 ball inside [0,1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from transferbench.base import keyed_random
from transferbench.base.specifications import Epsilon
from transferbench.threats.lp_ball import LpBall
from transferbench.threats.projections import difference, l1_correction, per_row

_LARGEST_MOVE = 0.45
"""Interior offsets use as many entries as are needed for none to move further."""


IDS = {"L1": "the absolute changes sum to at most the radius, inside [0,1]"}


@dataclass(frozen=True)
class L1Ball(LpBall):
    """The sum of the changes' sizes is at most the radius."""

    name: ClassVar[Literal["L1"]] = "L1"

    def distance(self, x: Tensor, z: Tensor) -> Tensor:
        return difference(x, z).abs().sum(1)

    def tolerance(self, dimension: int) -> float:
        """1e-6 + 2^-24 d."""
        return 1e-6 + 2.0**-24 * dimension

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        """The nearest admissible point, up to rounding."""
        point = self.start_from_noise(x, z - x)
        outside = self.distance(x, point) > self.radius + self.tolerance(x[0].numel())
        if bool(outside.any()):
            # Where z is very far out, the rounding of z - x alone tops the tolerance: a second projection removes it.
            point = torch.where(per_row(outside, point), self.start_from_noise(x, point - x), point)
        return point

    def start_from_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """x + noise projected onto the intersection of ball and box; the clamp removes a rounding."""
        return (x + noise + l1_correction(x, noise, self.radius)).clamp(0, 1)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """[B]: The Linf norm."""
        return gradient.flatten(1).abs().amax(1)

    def _offset_sizes(self, x: Tensor, keys: Tensor, length: float) -> Tensor:
        """Equal moves of at most .45 of as few entries as possible, drawn by key; of all where those are too few."""
        count = min(max(int(-(-length // _LARGEST_MOVE)), 1), x[0].numel())
        order = keyed_random.uniform(keys, tuple(x.shape[1:])).flatten(1).argsort(1)[:, :count]
        return torch.zeros_like(x.flatten(1)).scatter(1, order, length / count).view_as(x)


def build(eps: Epsilon) -> L1Ball:
    """The threat with this radius."""
    return L1Ball(eps)
