"""E-AT: adversarial fine-tuning that alternates between the extreme norms, Linf and L1.

The norms are equally likely until each was drawn once. Robustness in L2 follows from that in Linf and L1 (Theorem 3.1).
APGD starts at the clean image, on the network in eval mode.

Paper: Croce and Hein 2022 (arXiv:2105.12508), robust-finetuning.
Loss: CE at APGD's point of highest loss in one of the norms, drawn for each batch with probability proportional to
1 - the norm's running robust accuracy in training.
Phases: one, all weights.
Options: `decay=weights` is the code's from scratch, where batch norm and biases do not decay.
Deviations: where all running accuracies are 1 the code's draw is undefined; here every norm is equally likely; from
scratch the code leaves batch norm and biases at a learning rate of 1, by mistake.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transferbench.attacks import lockstep
from transferbench.attacks.apgd_train import apgd_train
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.schedules import Schedule
from transferbench.base.specifications import ThreatModel, parse_norm
from transferbench.methods import (
    AdversarialMethod,
    AdversarialParams,
    Batch,
    Network,
    NotNegative,
    Padding,
    Positive,
)

VERSION = 2


@dataclass(frozen=True)
class Params(AdversarialParams):
    """Fine-tuning on CIFAR-10: 3 epochs of batches of 128 (3 times 391 steps with validation=none), the last of 80
    images, lr .05, schedule thirds, weight decay 5e-4, crops of images padded by 4.

    From scratch the code leaves batch norm and biases without weight decay: `decay=weights`.

    `l_norms` and `l_eps` are comma-separated lists of equal length, as the code's flags. `at_iter` is the number of
    APGD steps; `l_iters` is an optional list of them per norm (ImageNet: 15 in L1, 5 in the others).
    """

    steps: Positive = 1173
    batch_size: Positive = 128
    lr: NotNegative = 0.05
    weight_decay: NotNegative = 5e-4
    schedule: Schedule = "thirds"
    crop_padding: Padding = 4
    partial_batches: bool = True
    l_norms: str = "Linf,L1"
    l_eps: str = "8/255,12"
    at_iter: Positive = 10
    l_iters: str = ""

    def __post_init__(self) -> None:
        """InputError for lists that do not pair up, or a value that is no norm, radius or number of steps."""
        super().__post_init__()
        self.inner_attacks()

    def inner_attacks(self) -> list[tuple[ThreatModel, int]]:
        """(threat, number of APGD steps) of each norm."""
        norms, radii = self.l_norms.split(","), self.l_eps.split(",")
        iters = self.l_iters.split(",") if self.l_iters else [str(self.at_iter)] * len(norms)
        if not len(norms) == len(radii) == len(iters) or len(set(norms)) != len(norms):
            raise InputError(
                f"l_norms={self.l_norms!r}, l_eps={self.l_eps!r} and l_iters={self.l_iters!r} do not pair up"
            )
        if not all(count.isdecimal() and int(count) > 0 for count in iters):
            raise InputError(f"l_iters={self.l_iters!r}: write whole numbers with commas, 5,15")
        pairs = zip(norms, radii, strict=True)
        threats = [ThreatModel.parse(parse_norm(norm), eps) for norm, eps in pairs]
        return [(threat, int(count)) for threat, count in zip(threats, iters, strict=True)]


class Method(AdversarialMethod[Params]):
    """Adversarial training in one norm per batch, drawn by the norms' running robust accuracies."""

    extends = "sat"

    @property
    def passes_per_step(self) -> float:
        return self.params.at_iter + 1

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.attacks = {threat.norm: (threat, count) for threat, count in params.inner_attacks()}

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        norm = self._draw(batch.step)
        return {"adversarial ce": self.cross_entropy(student.model(self.worst(student, batch, norm)), batch.y)}

    def worst(self, student: Network, batch: Batch, norm: str) -> Tensor:
        """[B, ...]: APGD's points of highest loss in the norm, in eval mode. Updates the norm's running accuracy,
        unless the step's radius is 0."""
        threat, count = self.attacks[norm]
        eps = self.radius(threat.eps, batch.step)
        if eps is None:
            return batch.x
        attack = apgd_train(ThreatModel(norm, eps), count)
        with lockstep.eval_mode(student.model) as attacked:
            result = lockstep.maximise(attack, attacked, batch.x, batch.y, batch.noise)
        total, survived = self.state.get(f"{norm} attacked", 0.0), self.state.get(f"{norm} survived", 0.0)
        self.state[f"{norm} attacked"] = total + len(batch.x)
        self.state[f"{norm} survived"] = survived + float((~result.fooled).sum())
        return result.best

    def weights(self) -> list[float]:
        """The norms' probabilities of being drawn, up to a common factor."""
        if not all(f"{name} attacked" in self.state for name in self.attacks):
            return [1.0] * len(self.attacks)
        return [1 - self.state[f"{name} survived"] / self.state[f"{name} attacked"] for name in self.attacks]

    def _draw(self, step: int) -> str:
        """The norm of a step."""
        names = list(self.attacks)
        key = torch.tensor([keyed_random.stream("eat norm", self.params.seed, step)])
        unit = float(keyed_random.uniform(key, (1,)))
        weights = self.weights()
        total = sum(weights)
        if total == 0:
            weights, total = [1.0] * len(names), float(len(names))
        reached = 0.0
        for name, weight in zip(names, weights, strict=True):
            reached += weight / total
            if unit < reached:
                return name
        return names[-1]
