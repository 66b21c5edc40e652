"""The interface of a threat: distance, projection, random start, tolerance and the conditions of admissible points.

Images x and points z are float [B, ...] in [0,1] pixels, and every row is computed by itself. A threat has no state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from torch import Tensor

from transferbench.base.specifications import Epsilon, ThreatModel, ThreatName


class Condition(NamedTuple):
    """One condition of an admissible point: `met` bool [B], and `fault`, the description of a point that fails it."""

    met: Tensor
    fault: str


class Admissibility(NamedTuple):
    """`distance` float64 [B], and the conditions in the order in which faults are reported."""

    distance: Tensor
    conditions: tuple[Condition, ...]


class Threat(ABC):
    """The points that an attacker may replace an image by. Nothing here assumes a radius."""

    name: ClassVar[ThreatName]

    @abstractmethod
    def distance(self, x: Tensor, z: Tensor) -> Tensor:
        """float64 [B]: how far z is from x in [0,1] pixels, the difference taken in float64."""

    @abstractmethod
    def tolerance(self, dimension: int) -> float:
        """The excess over the threat's limits, in [0,1] pixels, that rounding an image of `dimension` entries to
        float32 explains. A point further out is a fault."""

    @abstractmethod
    def admissible(self, x: Tensor, z: Tensor) -> Admissibility:
        """The distances of the points z from x, and which of the threat's conditions each point meets."""

    @abstractmethod
    def project(self, x: Tensor, z: Tensor) -> Tensor:
        """[B, ...]: an admissible point near z; z itself, up to rounding, where it is admissible."""

    @abstractmethod
    def random_start(self, x: Tensor, keys: Tensor) -> Tensor:
        """[B, ...]: an admissible random point around x, drawn by the rows' int64 keys [B]."""


@dataclass(frozen=True)
class BoundedThreat(Threat):
    """A threat with a radius."""

    eps: Epsilon

    @classmethod
    def parse(cls, eps: str) -> Self:
        """The threat of this class with a radius given as text. InputError as of `ThreatModel.parse`."""
        return cls(ThreatModel.parse(cls.name, eps).eps)

    @property
    def radius(self) -> float:
        return float(self.eps)

    def unit(self, x: Tensor) -> Tensor | float:
        """One unit of the radius in [0,1] pixels: a number, or a tensor that broadcasts against x."""
        return 1.0

    def displace(self, x: Tensor, shares: Tensor) -> Tensor:
        """[B, ...]: x with every entry moved by its share of the radius (`shares` in [-1, 1]), projected."""
        return self.project(x, x + self.radius * self.unit(x) * shares)

    def __str__(self) -> str:
        return f"{self.name}:{self.eps}"
