"""The box of Renofeation's evaluator, in the space of normalised images.

eval_robustness.py of Chin et al. 2020 (arXiv:2002.02998) works on images normalised by ImageNet's mean and standard
deviation: within eps (.1) of the image in that space, then clipped to [-2.2, 2.2]. So pixels below 0 are admissible,
and near-white pixels are moved down by up to .44 standard deviations whatever eps is. Images are RGB, [B, 3, H, W].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.ids import RENOFEATION
from transferbench.base.specifications import Epsilon
from transferbench.threats.projections import difference
from transferbench.threats.threat import Admissibility, BoundedThreat, Condition

_MEAN, _STD, _CLIP = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 2.2
"""ImageNet's normalisation, and the evaluator's clipping."""


IDS = {"renofeation": "the box of Renofeation's evaluator, in normalised space"}


@dataclass(frozen=True)
class RenofeationBox(BoundedThreat):
    """The radius is in units of ImageNet's standard deviations; distances are Linf in [0,1] pixels.

    `unit`, `bounds` and what uses them raise InputError unless x has 3 channels.
    """

    name: ClassVar[str] = RENOFEATION

    def distance(self, x: Tensor, z: Tensor) -> Tensor:
        return difference(x, z).abs().amax(1)

    def tolerance(self, dimension: int) -> float:
        """2^-22, four roundings of a float32 below 1: the scaled radius, the sum, the bound, the sum of the bound."""
        return 2.0**-22

    def unit(self, x: Tensor) -> Tensor:
        """[1, 3, 1, 1]: ImageNet's standard deviations."""
        return self._channels(x, _STD)

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and highest admissible image around x, in x's precision."""
        mean, std = self._channels(x, _MEAN), self._channels(x, _STD)
        low, high = mean - _CLIP * std, mean + _CLIP * std
        return (x - self.radius * std).clamp(low, high), (x + self.radius * std).clamp(low, high)

    def admissible(self, x: Tensor, z: Tensor) -> Admissibility:
        """Finite, and within the bounds plus tolerance in float64. [0,1] need not be kept."""
        low, high = self.bounds(x.double())
        excess = self.tolerance(x[0].numel())
        inside = (z >= low - excess) & (z <= high + excess)
        return Admissibility(
            self.distance(x, z),
            (
                Condition(torch.isfinite(z.flatten(1)).all(1), "not finite"),
                Condition(inside.flatten(1).all(1), f"outside the ball {self}"),
            ),
        )

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        """The nearest admissible point."""
        return torch.clamp(z, *self.bounds(x))

    def random_start(self, x: Tensor, keys: Tensor) -> Tensor:
        """The evaluator's start: every entry moved by U(-eps, eps) in normalised space, projected."""
        return self.displace(x, 2 * keyed_random.uniform(keys, tuple(x.shape[1:])) - 1)

    @staticmethod
    def _channels(x: Tensor, values: tuple[float, ...]) -> Tensor:
        if x.dim() != 4 or x.shape[1] != 3:
            raise InputError(f"{RENOFEATION} is for colour images, not for shape {tuple(x.shape[1:])}")
        return torch.tensor(values, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)


def build(eps: Epsilon) -> RenofeationBox:
    """The threat with this radius."""
    return RenofeationBox(eps)
