"""What the balls of Linf, L2 and L1 share. A point is admissible inside the ball around its image and inside [0,1]."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import Norm
from transferbench.threats.threat import Admissibility, BoundedThreat, Condition


@dataclass(frozen=True)
class LpBall(BoundedThreat):
    """The radius is in [0,1] pixels."""

    name: ClassVar[Norm]

    def admissible(self, x: Tensor, z: Tensor) -> Admissibility:
        """Finite, inside [0,1], and within radius plus tolerance of x in float64."""
        distance, flat = self.distance(x, z), z.flatten(1)
        return Admissibility(
            distance,
            (
                Condition(torch.isfinite(flat).all(1), "not finite"),
                Condition((flat.amin(1) >= 0) & (flat.amax(1) <= 1), "outside [0,1]"),
                Condition(distance <= self.radius + self.tolerance(flat.shape[1]), f"outside the ball {self}"),
            ),
        )

    def noise(self, keys: Tensor, shape: tuple[int, ...]) -> Tensor:
        """float32 [B, *shape]: the noise of AutoAttack's random start, Gaussian unless the class says otherwise."""
        return keyed_random.normal(keys, shape)

    @abstractmethod
    def start_from_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """[B, ...]: AutoAttack's random start around x from noise that is already drawn, inside [0,1]."""

    def random_start(self, x: Tensor, keys: Tensor) -> Tensor:
        """AutoAttack's random start (Croce and Hein 2020, arXiv:2003.01690; L1: 2021, arXiv:2103.01208)."""
        return self.start_from_noise(x, self.noise(keys, tuple(x.shape[1:])))

    @abstractmethod
    def dual_norm(self, gradient: Tensor) -> Tensor:
        """[B]: the dual norm of each row: how fast a linear function with this gradient grows in the ball."""

    def interior_offset(self, x: Tensor, keys: Tensor, share: float) -> Tensor:
        """[B, ...]: offsets of length `share` times the radius, drawn by key, with x + offset inside [0,1].

        Every entry that moves does so towards the farther of 0 and 1, by at most .5. InputError where that is too
        little.
        """
        sizes = self._offset_sizes(x, keys, share * self.radius)
        if float(sizes.max()) > 0.5:
            raise InputError(f"no point at {share} x {self} fits into [0,1] around every pixel")
        return sizes * torch.where(x < 0.5, 1.0, -1.0)

    @abstractmethod
    def _offset_sizes(self, x: Tensor, keys: Tensor, length: float) -> Tensor:
        """[B, ...], not negative: how far every entry of an interior offset of that length moves."""

    def dual_direction(self, offset: Tensor) -> Tensor:
        """[B, d]: w with <offset, w> = 1 and smallest dual norm, for an interior offset.

        Among all changes of the offset's norm, none makes <change, w> larger than the offset does.
        """
        flat = offset.flatten(1)
        return flat.sign() / flat.abs().sum(1, keepdim=True)
