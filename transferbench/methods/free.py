"""Free adversarial training: one backward pass serves the weights and the perturbation.

Each of the m steps on a batch moves the weights at x + delta and, with the gradient of the same backward pass, delta:
delta <- clip(delta + eps sign(g), -eps, eps). Delta belongs to the slots of a batch and is never reset.

Paper: Shafahi et al. 2019 (arXiv:1904.12843), free_adv_train.
Loss: CE at x + delta.
Phases: one, all weights; m steps in a row on every batch.
Deviations: batches are whole, as in its CIFAR code (its ImageNet code cuts delta to the size of an epoch's last batch).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transferbench.base.errors import InputError
from transferbench.base.schedules import Schedule
from transferbench.base.specifications import Epsilon
from transferbench.methods import (
    AdversarialMethod,
    AdversarialParams,
    Batch,
    Decay,
    Network,
    NotNegative,
    Padding,
    Positive,
)
from transferbench.threats import LinfBall

VERSION = 2


@dataclass(frozen=True)
class Params(AdversarialParams):
    """CIFAR: m = 8, eps 8/255, 80000 steps (10000 batches) of 128, lr .1/.01/.001, weight decay 2e-4 on convolutions
    and linear layers alone, crops of images padded by 2.
    """

    steps: Positive = 80_000
    batch_size: Positive = 128
    lr: NotNegative = 0.1
    weight_decay: NotNegative = 2e-4
    schedule: Schedule = "piecewise-constant"
    decay: Decay = "weights"
    crop_padding: Padding = 2
    eps: str = "8/255"
    m: Positive = 8

    def __post_init__(self) -> None:
        """InputError where eps is no radius, or for batches of several sizes."""
        super().__post_init__()
        LinfBall.parse(self.eps)
        if self.partial_batches:
            raise InputError("free: partial_batches=True, but its perturbation belongs to the slots of a whole batch")


class Method(AdversarialMethod[Params]):
    """`delta` is the perturbation of the batch's slots; its gradient is that of the last step's backward pass."""

    extends = "madry"

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        self.replays = self.params.m
        self.delta: Tensor | None = None
        return super().student(source, fresh, num_classes)

    def memory(self) -> dict[str, Any]:
        delta = self.delta
        return {} if delta is None else {"delta": delta.detach(), "gradient": delta.grad}

    def recall(self, memory: dict[str, Any]) -> None:
        if memory:
            self.delta = memory["delta"]
            self.delta.grad = memory["gradient"]

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        delta = torch.zeros_like(batch.x) if self.delta is None else self.delta.detach()
        if self.delta is not None and self.delta.grad is not None:
            radius = self.radius(Epsilon.parse(self.params.eps), batch.step)
            eps = 0.0 if radius is None else float(radius)
            # The gradient is from the loop's last backward pass, that of the previous replay.
            delta = (delta + eps * self.delta.grad.sign()).clamp(-eps, eps)
        self.delta = delta.requires_grad_()
        return {"adversarial ce": self.cross_entropy(student.model((batch.x + self.delta).clamp(0, 1)), batch.y)}
