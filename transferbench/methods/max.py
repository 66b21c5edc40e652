"""MAX: adversarial training on each example's worst norm.

Paper: Tramer and Boneh 2019 (arXiv:1904.13000), as E-AT's paper re-implements it (Croce and Hein 2022,
arXiv:2105.12508).
Loss: mean over the examples of CE at the point, among APGD's of every norm, whose loss is highest.
Phases: one, all weights.
Deviations: the worst point is chosen with the network in eval mode, in which it was searched; one pass in train mode
then sees the chosen points alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from transferbench.attacks import lockstep
from transferbench.methods import Batch, Network, eat, sat

VERSION = 2

Params = sat.Params


class Method(eat.Method):
    """E-AT's attacks; the loss is at each example's worst norm."""

    extends = "apgd-at"

    @property
    def passes_per_step(self) -> float:
        return len(self.params.l_norms.split(",")) * self.params.at_iter + 1

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        points = torch.stack([self.worst(student, batch, norm) for norm in self.attacks])
        with lockstep.eval_mode(student.model) as attacked, torch.no_grad():
            losses = torch.stack([F.cross_entropy(attacked(x), batch.y, reduction="none") for x in points])
        chosen = points[losses.argmax(0), torch.arange(len(batch.x), device=batch.x.device)]
        return {"adversarial ce": self.cross_entropy(student.model(chosen), batch.y)}
