"""FARE with a probe: features that attacks on them hardly move, trained without labels, then a head on them.

The features are the inputs of the source's classifier, and the source's own on the clean image are their target.

Paper: Schlarmann et al. 2024 (arXiv:2402.12336, ICML), chs20/RobustVLM.
Loss: the mean over the batch of ||z(x'; theta) - z(x; theta_source)||_2^2, x' being the end point of PGD on the same
distance; in the second phase CE at x, or at the end point of PGD on it.
Phases: two: all weights but the head's, by AdamW; then the new head alone, by SGD.
Options: `probe=adversarial` attacks in the second phase too.
Deviations: it is reduced from CLIP's image encoder to classifiers, whose head is trained on the target where theirs is
text; the network is in eval mode throughout, so that batch norm keeps the source's statistics; the images are the
target's, theirs are ImageNet's.

The attack starts uniformly in the ball. A step is the sign of the gradient's sign plus .9 of the step before, which
therefore decides where the gradient is 0 alone, as in the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from transferbench.attacks import lockstep, pgd
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.schedules import Schedule
from transferbench.base.specifications import Epsilon
from transferbench.methods import (
    AdversarialMethod,
    AdversarialParams,
    Batch,
    Network,
    NotNegative,
    Optimiser,
    Padding,
    Phase,
    Positive,
)
from transferbench.models.features import Penultimate
from transferbench.threats import LinfBall

VERSION = 1

_MOMENTUM = 0.9


@dataclass(frozen=True)
class Params(AdversarialParams):
    """The code's ViT-L/14: 20000 steps of 128, AdamW at 1e-5 with decay 1e-4, 1400 of them warm-up, then cosine; PGD-10
    of step 1/255 at 4/255; no augmentation.

    `steps` are those of both phases; `probe_steps` of them, 0 a third, are the head's, at `probe_lr` with the decay
    `probe_decay` (RobustSSL's linear fine-tuning). `step_size` is a fraction of eps.
    """

    steps: Positive = 30_000
    batch_size: Positive = 128
    lr: NotNegative = 1e-5
    schedule: Schedule = "cosine"
    augment: Literal["auto", "none", "crop-flip", "resized-crop-flip"] = "none"
    crop_padding: Padding = "auto"
    optimiser: Optimiser = "adamw"
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.07
    eps: str = "4/255"
    k: Positive = 10
    step_size: Annotated[float, Field(gt=0)] = 0.25
    probe: Literal["clean", "adversarial"] = "clean"
    probe_steps: Annotated[int, Field(ge=0)] = 0
    probe_lr: NotNegative = 0.01
    probe_decay: NotNegative = 2e-4

    def __post_init__(self) -> None:
        """InputError where eps is no radius, the second phase is not a part of the training, or a part is tuned."""
        super().__post_init__()
        LinfBall.parse(self.eps)
        if self.probe_steps >= self.steps:
            raise InputError(f"probe_steps={self.probe_steps}: the head's phase is a part of all {self.steps} steps")
        if self.tune != "all":
            raise InputError(f"fare: tune={self.tune}, but its first phase trains all weights except the head's")


class Method(AdversarialMethod[Params]):
    """The distance of features first, then a head."""

    extends = "probe"
    needs_source = True

    @property
    def head_steps(self) -> int:
        """The steps of the second phase."""
        return self.params.probe_steps or max(self.params.steps // 3, 1)

    @property
    def passes_per_step(self) -> float:
        return self.params.k + 1.5

    def phases(self) -> list[Phase]:
        params, head = self.params, self.head_steps
        first = params.steps - head
        return [
            Phase("features", first, params.lr, params.schedule, lambda name: not self._in_head(name), mode="eval"),
            Phase(
                "head",
                head,
                params.probe_lr,
                params.schedule,
                self._in_head,
                mode="eval",
                optimiser="sgd",
                weight_decay=params.probe_decay,
            ),
        ]

    def _in_head(self, name: str) -> bool:
        return name.startswith(self.head)

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        assert source is not None
        eps = self.radius(Epsilon.parse(self.params.eps), batch.step)
        if batch.step >= self.params.steps - self.head_steps:
            x = batch.x if eps is None or self.params.probe == "clean" else self._misclassified(student, batch, eps)
            return {"ce": self.cross_entropy(student.model(x), batch.y)}
        with torch.no_grad():
            target = Penultimate(source.model, source.layers)(batch.x)
        x = batch.x if eps is None else self._displaced(student, batch, target, eps)
        change = Penultimate(student.model, student.layers)(x) - target
        return {"features": change.square().sum(1).mean()}

    def _displaced(self, student: Network, batch: Batch, target: Tensor, eps: Epsilon) -> Tensor:
        """[B, ...]: the end points of PGD on the distance of the features from `target`."""
        params, ball = self.params, LinfBall(eps)
        features = Penultimate(student.model, student.layers)
        x = ball.displace(batch.x, 2 * keyed_random.uniform(batch.noise, tuple(batch.x.shape[1:])) - 1)
        velocity = torch.zeros_like(x)
        for _ in range(params.k):
            _, _, gradient = lockstep.forward_backward(features, x, lambda z: (z - target).square().sum(1), True)
            velocity = (_MOMENTUM * velocity + gradient.sign()).sign()
            x = ball.project(batch.x, x + params.step_size * ball.radius * velocity)
        return x

    def _misclassified(self, student: Network, batch: Batch, eps: Epsilon) -> Tensor:
        """[B, ...]: the end points of PGD on the cross-entropy."""
        params = self.params
        attack = pgd.PGD("pgd", LinfBall(eps), pgd.PGDSettings(params.k, params.step_size))
        return lockstep.end_point(attack, student.model, batch.x, batch.y, batch.noise)
