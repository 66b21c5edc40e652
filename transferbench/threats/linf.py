"""The Linf ball inside [0,1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from transferbench.base import keyed_random
from transferbench.base.specifications import Epsilon
from transferbench.threats.lp_ball import LpBall
from transferbench.threats.projections import difference, per_row

IDS = {"Linf": "every pixel moves by at most the radius, inside [0,1]"}


@dataclass(frozen=True)
class LinfBall(LpBall):
    """Every pixel moves by at most the radius."""

    name: ClassVar[Literal["Linf"]] = "Linf"

    def distance(self, x: Tensor, z: Tensor) -> Tensor:
        return difference(x, z).abs().amax(1)

    def tolerance(self, dimension: int) -> float:
        """2^-23, whatever the dimension."""
        return 2.0**-23

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and highest admissible image around x."""
        return (x - self.radius).clamp_(min=0), (x + self.radius).clamp_(max=1)

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        """The nearest admissible point."""
        return torch.clamp(z, *self.bounds(x))

    def noise(self, keys: Tensor, shape: tuple[int, ...]) -> Tensor:
        """float32 [B, *shape], uniform on [-1, 1)."""
        return 2 * keyed_random.uniform(keys, shape) - 1

    def start_from_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """The noise scaled so that its largest entry is the radius, added, clamped to [0,1]."""
        largest = per_row(noise.abs().flatten(1).amax(1), noise)
        return (x + self.radius * (noise / (largest + 1e-12))).clamp(0, 1)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """[B]: The L1 norm."""
        return gradient.flatten(1).abs().sum(1)

    def _offset_sizes(self, x: Tensor, keys: Tensor, length: float) -> Tensor:
        return torch.full_like(x, length)


def build(eps: Epsilon) -> LinfBall:
    """The threat with this radius."""
    return LinfBall(eps)
