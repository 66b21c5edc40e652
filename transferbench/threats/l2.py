"""The L2 ball inside [0,1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from transferbench.base import keyed_random
from transferbench.base.specifications import Epsilon
from transferbench.threats.lp_ball import LpBall
from transferbench.threats.projections import difference, into_l2_ball_, unit_l2

IDS = {"L2": "the Euclidean length of the change is at most the radius, inside [0,1]"}


@dataclass(frozen=True)
class L2Ball(LpBall):
    """The Euclidean length of the change is at most the radius."""

    name: ClassVar[Literal["L2"]] = "L2"

    def distance(self, x: Tensor, z: Tensor) -> Tensor:
        return difference(x, z).square().sum(1).sqrt()

    def tolerance(self, dimension: int) -> float:
        """1e-6 + 2^-24 sqrt(d)."""
        return 1e-6 + 2.0**-24 * dimension**0.5

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        """Into the ball, then into [0,1], as attacks do it: admissible, not always the nearest admissible point."""
        return into_l2_ball_(z - x, x, self.radius)

    def start_from_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """The noise scaled onto the sphere, added, clamped to [0,1]."""
        return (x + self.radius * unit_l2(noise)).clamp(0, 1)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """[B]: The L2 norm."""
        return gradient.flatten(1).norm(dim=1)

    def _offset_sizes(self, x: Tensor, keys: Tensor, length: float) -> Tensor:
        weight = keyed_random.uniform(keys, tuple(x.shape[1:])).flatten(1) + 0.5
        return (length * weight / weight.norm(dim=1, keepdim=True)).view_as(x)

    def dual_direction(self, offset: Tensor) -> Tensor:
        flat = offset.flatten(1)
        return flat / flat.square().sum(1, keepdim=True)


def build(eps: Epsilon) -> L2Ball:
    """The threat with this radius."""
    return L2Ball(eps)
