"""Renofeation: random re-initialisation, noisy feature distillation, then stochastic weight averaging.

The source's stages are matched as in DELTA (lambda_f 5) while spatial dropout follows every stage; the match is
computed before the dropout.

Paper: Chin et al. 2020 (arXiv:2002.02998), Renofeation.sh.
Loss: as `delta`, with spatial dropout after every stage.
Phases: two, from a re-initialised network: 3/4 of the steps at a cosine rate, then 1/4 at a constant rate whose
snapshots are averaged; at last batch norm's statistics are estimated anew by one pass in train mode, dropout active.
Deviations: initialisation is PyTorch's present default (batch norm weight 1, where torch <= 1.1 drew U(0,1)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from transferbench.methods import Batch, Network, NotNegative, Phase, Positive, delta_r
from transferbench.models.features import spatial_dropout

VERSION = 2


@dataclass(frozen=True)
class Params(delta_r.Params):
    """90000 + 30000 steps of 64; lr .01 cosine, then .005 constant; weight decay .005; snapshot every 500."""

    steps: Positive = 120_000
    swa_lr: NotNegative = 5e-3
    swa_snapshots: Positive = 60
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class Method(delta_r.Method):
    """DELTA-R with spatial dropout after every stage, then weight averaging and new batch norm statistics."""

    params: Params

    def phases(self) -> list[Phase]:
        params = self.params
        averaging = params.steps // 4
        every = max(averaging // params.swa_snapshots, 1)
        return [
            Phase("distil", params.steps - averaging, params.lr, params.schedule),
            Phase("average", averaging, params.swa_lr, "constant", average_every=every),
        ]

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        with spatial_dropout(student.model, student.layers.stages, self.params.dropout):
            return super().loss(student, source, batch)

    def finish(self, student: Network, batches: Callable[[], Iterator[Batch]]) -> None:
        with spatial_dropout(student.model, student.layers.stages, self.params.dropout), torch.no_grad():
            norms = [m for m in student.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            momenta = [norm.momentum for norm in norms]
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a cumulative average over the pass
            student.model.train()
            for batch in batches():
                student.model(batch.x)
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
