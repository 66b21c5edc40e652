"""TRADES: clean cross-entropy plus the divergence between clean and attacked predictions.

Paper: Zhang et al. 2019 (arXiv:1901.08573).
Loss: CE(f(x)) + beta KL(f(x) || f(x')), with x' the point in the Linf ball that maximises that KL.
Phases: one, all weights.
Presets: `aff` is RobustSSL's adversarial full fine-tuning, whose data keep no validation images; `fft-5-trades`,
`fft-50-trades` and `lp-50-trades` are those of `apgd-at` with this loss.
Options: `inner=ce` finds x' by PGD on the cross-entropy from a random start (TWINS's baseline), `inner=apgd-ce` by APGD
from x (arXiv:2508.14079); `bn=dual` has batch norms of their own for x and for x', of which those for x' are kept
(RobustSSL).
Deviations: the rate drops at 1/2 and 3/4 of the steps, not at epochs 75 and 90 of 100; with `bn=dual` both begin as the
source's, RobustSSL's sources have two already.

x' is found by PGD from x + .001 N(0, 1), on the network in eval mode; the KL is summed over classes and averaged over
the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from transferbench.attacks import lockstep, pgd
from transferbench.attacks.apgd_train import apgd_train
from transferbench.base import keyed_random
from transferbench.base.schedules import Schedule
from transferbench.base.specifications import Epsilon, ThreatModel
from transferbench.methods import (
    LATER,
    AdversarialMethod,
    AdversarialParams,
    Batch,
    Network,
    NotNegative,
    Padding,
    Positive,
    apgd_at,
)
from transferbench.models import twin_norms
from transferbench.threats import LinfBall

VERSION = 2

IDS = {
    "aff": "AFF of RobustSSL: TRADES from a zero head, with batch norms of their own for clean and attacked images",
    "fft-5-trades": "FFT-5 of the Guide with TRADES: all weights, 5 epochs",
    "fft-50-trades": "FFT-50 of the Guide with TRADES: all weights, 50 epochs",
    "lp-50-trades": "LP-50 of the Guide with TRADES: the head alone, 50 epochs",
}
_GUIDE = {**apgd_at.GUIDE, "eps": "4/255", "inner": "apgd-ce", "beta": 1.0}
PRESETS = {
    # CIFAR-10: 25 epochs of 391, a tenth after epochs 15 and 20.
    "aff": {
        "steps": 9775,
        "schedule": "piecewise-15-5-5",
        "step_size": 0.25,
        "bn": "dual",
        "head_init": "zero",
        "new_head": "yes",
    },
    "fft-5-trades": {**_GUIDE, "steps": 35},
    "fft-50-trades": {**_GUIDE, "steps": 350},
    "lp-50-trades": {**_GUIDE, "steps": 350, "tune": "head"},
}

_START = 1e-3


@dataclass(frozen=True)
class Params(AdversarialParams):
    """The code's CIFAR-10: beta 6, eps 8/255, 10 steps of .007 (.225 of eps), lr .1, weight decay 2e-4, 76 epochs.

    Batches of 128, an epoch's last one smaller; crops of images padded by 4. `step_size` is a fraction of eps. The code
    reduces the learning rate at epochs 75 and 90 of 100: the closest schedule here is `step`.

    `inner` is the attack that finds x'; APGD has no `step_size`. `bn=dual` changes nothing in a network without batch
    norm.
    """

    steps: Positive = 29_716
    batch_size: Positive = 128
    lr: NotNegative = 0.1
    weight_decay: NotNegative = 2e-4
    schedule: Schedule = "step"
    crop_padding: Padding = 4
    partial_batches: bool = True
    eps: str = "8/255"
    k: Positive = 10
    step_size: Annotated[float, Field(gt=0)] = 0.225
    beta: NotNegative = 6.0
    inner: Literal["kl", "ce", "apgd-ce"] = field(default="kl", metadata=LATER)
    bn: Literal["shared", "dual"] = field(default="shared", metadata=LATER)

    def __post_init__(self) -> None:
        """InputError where eps is no radius."""
        super().__post_init__()
        LinfBall.parse(self.eps)


class Method(AdversarialMethod[Params]):
    """Clean cross-entropy plus the divergence at PGD's end points."""

    extends = "madry"
    variants = (*AdversarialMethod.variants, "bn")

    @property
    def passes_per_step(self) -> float:
        return self.params.k + 2

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        student = super().student(source, fresh, num_classes)
        if self.params.bn == "dual":
            twin_norms.insert(student.model, frozen=False)
        return student

    def strip(self, student: Network) -> None:
        twin_norms.keep(student.model, "second")
        super().strip(student)

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        with lockstep.eval_mode(student.model) as attacked:
            x = self.attacked(attacked, batch)
        with twin_norms.through(student.model, "first") as network:
            clean = network(batch.x)
        divergence = F.kl_div(
            F.log_softmax(student.model(x), 1), F.log_softmax(clean, 1), reduction="batchmean", log_target=True
        )
        return {"ce": self.cross_entropy(clean, batch.y), "divergence": self.params.beta * divergence}

    def attacked(self, network: nn.Module, batch: Batch) -> Tensor:
        """[B, ...]: the end points of PGD on the divergence, or what `inner` finds."""
        params = self.params
        eps = self.radius(Epsilon.parse(params.eps), batch.step)
        if eps is None:
            return batch.x
        ball = LinfBall(eps)
        if params.inner == "ce":
            attack = pgd.PGD("pgd", ball, pgd.PGDSettings(params.k, params.step_size))
            return lockstep.end_point(attack, network, batch.x, batch.y, batch.noise)
        if params.inner == "apgd-ce":
            apgd = apgd_train(ThreatModel("Linf", eps), params.k)
            return lockstep.maximise(apgd, network, batch.x, batch.y, batch.noise).best
        with torch.no_grad(), twin_norms.through(network, "first"):
            target = F.log_softmax(network(batch.x), 1)
        x = batch.x + _START * keyed_random.normal(batch.noise, tuple(batch.x.shape[1:]))
        for _ in range(params.k):
            _, _, gradient = lockstep.forward_backward(
                network,
                x,
                lambda out: F.kl_div(F.log_softmax(out, 1), target, reduction="none", log_target=True).sum(1),
                True,
            )
            x = ball.project(batch.x, x + params.step_size * ball.radius * gradient.sign())
        return x
