"""TWINS: adversarial training with two branches of batch norm, of which one keeps the source's statistics.

The branches share all weights but their own scales and shifts. The first half of a batch goes through the frozen
branch, the rest through the adaptive one, which is ordinary batch norm, is attacked, and is what is kept.

Paper: Liu et al. 2023 (arXiv:2303.11135, CVPR), CVPR2023-TWINS.
Loss: CE_adaptive(x') + lambda CE_frozen(x'); in the form `trades` CE_adaptive(x) + lambda CE_frozen(x) + beta/B times
the sums of KL(f(x) || f(x')) over both halves, the frozen one's times lambda.
Phases: one, all weights.
Options: `form=trades`; `branch=frozen` keeps the other branch. Caltech-256: lambda .4, weight decay 1e-3.
Deviations: in its TRADES form clean and attacked images are two passes; the last step's weights are kept, the code's
TRADES keeps the best on test images.

A sum over half a batch over the whole batch's size is the code's: beta 6 weighs as 3 elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from transferbench.base.errors import InputError
from transferbench.base.schedules import Schedule
from transferbench.methods import Batch, Decay, Network, NotNegative, Padding, Positive, madry
from transferbench.models import twin_norms

VERSION = 1

NEEDS = {"twins": "batch norm"}


@dataclass(frozen=True)
class Params(madry.Params):
    """The code's CIFAR-10: 60 epochs of batches of 128, lr .003, a tenth after epochs 30 and 50, weight decay 1e-5,
    lambda 1, PGD-10 of step .00784 at .0314; crops of images padded by 4.

    `twin_lmda` is lambda, `beta` that of the form `trades`.
    """

    steps: Positive = 23_460
    lr: NotNegative = 3e-3
    weight_decay: NotNegative = 1e-5
    schedule: Schedule = "piecewise-30-20-10"
    decay: Decay = "all"
    crop_padding: Padding = 4
    k: Positive = 10
    twin_lmda: NotNegative = 1.0
    form: Literal["at", "trades"] = "at"
    beta: NotNegative = 6.0
    branch: Literal["adaptive", "frozen"] = "adaptive"

    def __post_init__(self) -> None:
        """InputError where eps is no radius, and for a part of the weights."""
        super().__post_init__()
        if self.tune != "all":
            raise InputError(f"twins: tune={self.tune} leaves batch norm in eval mode, where its branches are one")


class Method(madry.Method):
    """Madry's attack on the adaptive branch, and the loss of both."""

    params: Params
    extends = "madry"
    needs_source = True

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        if params.form == "trades":
            self.extends = "trades"

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        student = super().student(source, fresh, num_classes)
        if not twin_norms.insert(student.model, frozen=True):
            raise InputError(f"twins: the network {type(student.model).__name__} has no batch norm")
        return student

    def strip(self, student: Network) -> None:
        twin_norms.keep(student.model, "second" if self.params.branch == "adaptive" else "first")

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        params, half = self.params, len(batch.x) // 2
        x = self.attacked(student, batch)
        with twin_norms.through(student.model, "halves") as network:
            logits = network(x)
            clean = logits if params.form == "at" else network(batch.x)
        parts = {
            "adaptive": self.cross_entropy(clean[half:], batch.y[half:]),
            "frozen": params.twin_lmda * self.cross_entropy(clean[:half], batch.y[:half]),
        }
        if params.form == "trades":
            rows = F.kl_div(F.log_softmax(logits, 1), F.log_softmax(clean, 1), reduction="none", log_target=True).sum(1)
            sums = params.twin_lmda * rows[:half].sum() + rows[half:].sum()
            parts["divergence"] = params.beta * sums / len(rows)
        return parts
