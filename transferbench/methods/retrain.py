"""Re-training: the source's architecture, re-initialised, trained on the target with Renofeation's settings.

Nothing of the source but its architecture is used.

Paper: Chin et al. 2020 (arXiv:2002.02998), Re-training.sh.
Loss: CE + beta/2 ||head||^2.
Phases: one, all weights, from PyTorch's default initialisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from transferbench.methods import BaseMethod, BaseParams, Batch, Network, NotNegative, Positive, delta, reinitialise

VERSION = 2


@dataclass(frozen=True)
class Params(BaseParams):
    """90000 steps of 64, an epoch's last batch smaller, lr .01 cosine, weight decay .005, momentum .9; beta .01."""

    steps: Positive = 90_000
    weight_decay: NotNegative = 5e-3
    partial_batches: bool = True
    beta: NotNegative = 1e-2


class Method(BaseMethod[Params]):
    """Cross-entropy from re-initialised weights, with weight decay on the head."""

    can_keep_head = False
    uses_source = False

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        student = super().student(source, fresh, num_classes)
        reinitialise(student.model)
        return student

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        return {
            "ce": self.cross_entropy(student.model(batch.x), batch.y),
            "head": 0.5 * self.params.beta * delta.linear_norm(student.model),
        }
