"""Universal perturbations: one delta for all images, made with the public network alone.

What is judged is clamp(x + delta, 0, 1). The delta is made once per source from the attacker's images, which are never
test images, and shown to every victim.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from transferbench.attacks import RowState
from transferbench.attacks.source_attack import SourceNetwork, require_positive
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.threats import LinfBall

AttackerImages = Literal["target", "source", "gaussian", "none"]
"""Training images of the target's data set or of the source's, Gaussian noise, or no images at all."""


REAL: tuple[AttackerImages, ...] = ("target", "source", "gaussian")


class UniversalAttack(Protocol):
    """The interface of an attack that makes one delta: `steps` steps, each on a batch of the attacker's images.

    `tries` deltas are made, each from its own start and batches. `passes` are those of an image at a step, forward and
    backward.
    """

    id: str
    tries: int
    steps: int
    batch: int
    images: AttackerImages
    forwards: int
    sees: Literal["source"]
    scope: Literal["universal"]

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the outputs that it asks of the source."""

    def start(self, shape: tuple[int, ...], key: int) -> RowState:
        """The state for images of shape [C, H, W]: `state["delta"]` [1, C, H, W]; `key` determines the draws."""

    def loss(self, delta: Tensor, images: Tensor, source: SourceNetwork, state: RowState) -> Tensor:
        """[]: what the attack maximises, on the images [B, C, H, W] of this step."""

    def step(self, state: RowState, gradient: Tensor) -> Tensor:
        """[1, C, H, W]: the next delta. Updates the state except for its `delta`."""


class Budget(NamedTuple):
    """The parameters that the universal attacks share.

    `steps` of size `step` (a share of eps, or a learning rate), each on `batch` of the attacker's `images`; `deltas`
    tries.
    """

    steps: int
    step: float
    batch: int
    images: AttackerImages
    deltas: int


def checked(id: str, params: Mapping[str, Any], images: Sequence[AttackerImages] = REAL) -> Budget:
    """The budget in an attack's parameters. InputError for a bad value."""
    require_positive(id, params, "steps", "step", "batch", "deltas")
    if params["images"] not in images:
        raise InputError(f"attack {id}: images={params['images']!r} is not one of {', '.join(images)}")
    return Budget(params["steps"], float(params["step"]), params["batch"], params["images"], params["deltas"])


class UniversalAscent(ABC):
    """Steps of one size along the sign of the gradient, clamped to +-eps, from U(-eps, eps).

    The base of the universal attacks: they add `loss`. `step` is a share of eps.
    """

    id: str
    forwards = 1
    sees: Literal["source"] = "source"
    scope: Literal["universal"] = "universal"

    @property
    def reads(self) -> tuple[str, ...]:
        return ("penultimate",)

    def __init__(self, ball: LinfBall, budget: Budget) -> None:
        self.steps, self.batch, self.images, self.tries = budget.steps, budget.batch, budget.images, budget.deltas
        self.eps, self.step_size = ball.radius, budget.step * ball.radius

    def start(self, shape: tuple[int, ...], key: int) -> RowState:
        keys = torch.tensor([key])
        return {
            "delta": (2 * keyed_random.uniform(keys, shape) - 1) * self.eps,
            "key": keys,
            "step": torch.zeros(1, dtype=torch.int64),
        }

    @abstractmethod
    def loss(self, delta: Tensor, images: Tensor, source: SourceNetwork, state: RowState) -> Tensor:
        """As of UniversalAttack."""

    def step(self, state: RowState, gradient: Tensor) -> Tensor:
        state["step"] += 1
        return (state["delta"] + self.step_size * gradient.sign()).clamp(-self.eps, self.eps)


def applied(images: Tensor, delta: Tensor) -> Tensor:
    """clamp(images + delta, 0, 1)."""
    return (images + delta).clamp(0, 1)


def gaussian_images(state: RowState, count: int, shape: tuple[int, ...], kept: int = 1) -> Tensor:
    """[count, C, H, W]: L4A's Gaussian images, not clipped. Per channel mean U(.4, .6) and standard deviation
    U(.05, .1), the same for `kept` steps; the noise is drawn at every step."""
    step, numbers = int(state["step"]), torch.arange(count)
    base = state["key"].cpu().repeat(count)
    keys = keyed_random.row_keys(keyed_random.stream("gaussian images", step // kept), base, numbers)
    mean = 0.4 + 0.2 * keyed_random.uniform(keys, (shape[0], 1, 1))
    spread = 0.05 + 0.05 * keyed_random.uniform(keyed_random.mix(keys), (shape[0], 1, 1))
    drawn = keyed_random.row_keys(keyed_random.stream("gaussian noise", step), base, numbers)
    return (mean + spread * keyed_random.normal(drawn, shape)).to(state["delta"])
