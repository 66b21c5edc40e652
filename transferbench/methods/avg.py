"""AVG: adversarial training on the average loss over all norms.

Three times the cost of one norm: every norm's points go through the network in a pass of their own, so batch norm sees
them one norm at a time.

Paper: Tramer and Boneh 2019 (arXiv:1904.13000), as E-AT's paper re-implements it (Croce and Hein 2022,
arXiv:2105.12508).
Loss: mean over the norms of CE at APGD's point of highest loss in that norm.
Phases: one, all weights.
Deviations: one pass for each norm.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transferbench.methods import Batch, Network, eat, sat

VERSION = 2

Params = sat.Params


class Method(eat.Method):
    """E-AT's attacks; the loss is the mean over the norms."""

    extends = "apgd-at"

    @property
    def passes_per_step(self) -> float:
        return len(self.params.l_norms.split(",")) * (self.params.at_iter + 1)

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        parts = [self.cross_entropy(student.model(self.worst(student, batch, norm)), batch.y) for norm in self.attacks]
        return {"adversarial ce": torch.stack(parts).mean()}
