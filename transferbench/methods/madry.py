"""PGD adversarial training (Madry et al. 2018), from scratch or from a source.

Every batch is adversarial, with PGD from a random start in the Linf ball.

Paper: Madry et al. 2018 (arXiv:1706.06083).
Loss: CE at the end point of PGD-k.
Phases: one, all weights.
Presets: `alf` is RobustSSL's adversarial linear fine-tuning, whose data keep no validation images.
Deviations: the inner attack runs with the network in eval mode (batch norm on running statistics), as E-AT's code does
it; the challenge's TensorFlow code attacks in train mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from transferbench.attacks import lockstep, pgd
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

IDS = {"alf": "ALF of RobustSSL: adversarial training of a linear head alone, from zero, on the frozen network"}
PRESETS = {
    # CIFAR-10, as `slf` in probe.py.
    "alf": {
        "steps": 2450,
        "batch_size": 512,
        "lr": 0.01,
        "schedule": "piecewise-10-10-5",
        "decay": "all",
        "crop_padding": 4,
        "partial_batches": True,
        "k": 10,
        "tune": "head",
        "head_init": "zero",
        "new_head": "yes",
    }
}


@dataclass(frozen=True)
class Params(AdversarialParams):
    """MadryLab's CIFAR-10 challenge: 80000 steps of 128, lr .1/.01/.001, weight decay 2e-4 on convolutions and linear
    layers alone, crops of images padded by 2, PGD-7 of step 2/8 eps.

    `step_size` is a fraction of eps.
    """

    steps: Positive = 80_000
    batch_size: Positive = 128
    lr: NotNegative = 0.1
    weight_decay: NotNegative = 2e-4
    schedule: Schedule = "piecewise-constant"
    decay: Decay = "weights"
    crop_padding: Padding = 2
    eps: str = "8/255"
    k: Positive = 7
    step_size: Annotated[float, Field(gt=0)] = 0.25

    def __post_init__(self) -> None:
        """InputError where eps is no radius."""
        super().__post_init__()
        LinfBall.parse(self.eps)


class Method(AdversarialMethod[Params]):
    """Cross-entropy at PGD's end points."""

    extends = "finetune"

    @property
    def passes_per_step(self) -> float:
        return self.params.k + 1

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        x = self.attacked(student, batch)
        return {"adversarial ce": self.cross_entropy(student.model(x), batch.y)}

    def attacked(self, student: Network, batch: Batch) -> Tensor:
        """[B, ...]: PGD's end points, the network in eval mode."""
        params = self.params
        eps = self.radius(Epsilon.parse(params.eps), batch.step)
        if eps is None:
            return batch.x
        attack = pgd.PGD("pgd", LinfBall(eps), pgd.PGDSettings(params.k, params.step_size))
        with lockstep.eval_mode(student.model) as network:
            return lockstep.end_point(attack, network, batch.x, batch.y, batch.noise)
