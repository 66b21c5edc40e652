"""L2-SP: keep the weights near the source's.

Paper: Li et al. 2018 (arXiv:1802.01483), as Renofeation's code has it (Chin et al. 2020, arXiv:2002.02998).
Loss: CE + beta/2 ||head||^2 + lambda times the sum over all convolutions, batch norms and linear layers of
||w - w0||^2 (no 1/2 before lambda; the optimiser's weight decay is 0).
Phases: one, all weights.
Options: `head=seed` also pulls the new head to its own random start, as that code does (w0 is stored after the head is
made); `head=original` leaves the head to its weight decay, as the paper does.
Deviations: the code ships no value of lambda (its default switches the method off); .01 is ours, a round value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from transferbench.methods import BaseMethod, BaseParams, Batch, Network, NotNegative, delta

VERSION = 2


@dataclass(frozen=True)
class Params(BaseParams):
    """Learning rate and batches of Renofeation's other baselines (the last one smaller); weight decay 0, beta .01."""

    lr: NotNegative = 5e-3
    weight_decay: NotNegative = 0.0
    partial_batches: bool = True
    l2sp_lmda: NotNegative = 1e-2
    beta: NotNegative = 1e-2
    head: Literal["seed", "original"] = "seed"


class Method(BaseMethod[Params]):
    """Fine-tuning with a penalty on the distance of the weights from `start`, the source's."""

    extends = "finetune"

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        student = super().student(source, fresh, num_classes)
        without = "\0" if self.params.head == "seed" else f"{student.layers.head}."
        self.start = delta.start_of(student.model, without)
        return student

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        return {
            "ce": self.cross_entropy(student.model(batch.x), batch.y),
            "head": 0.5 * self.params.beta * delta.linear_norm(student.model),
            "start": self.params.l2sp_lmda * delta.squared_distance(student.model, self.start),
        }
