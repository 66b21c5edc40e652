"""Renofeation: random re-initialisation, noisy feature distillation, then stochastic weight averaging.

The source's stages are matched as in DELTA (lambda_f 5) while spatial dropout follows every stage; the match is
computed before the dropout.

Paper: Chin et al. 2020 (arXiv:2002.02998), Renofeation.sh.
Loss: as `delta`, with spatial dropout after every stage.
Phases: two, from a re-initialised network: 3/4 of the steps at a cosine rate, then 1/4 (or `swa_steps`) at a constant
rate whose snapshots are averaged; at last batch norm's statistics are estimated anew by one pass in train mode, dropout
active.
Options: `swa_steps`, `swa_freq`, `swa_start` and `swa_lr` are the second phase's; `feat_layers` and `l2sp_lmda` as for
`delta`.
Deviations: initialisation is PyTorch's present default (batch norm weight 1, where torch <= 1.1 drew U(0,1)); with
`l2sp_lmda` both phases pull to the weights of the source, the code's second run pulls to those that it starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from transferbench.base.errors import InputError
from transferbench.methods import Batch, Network, NotNegative, Phase, Positive, delta_r
from transferbench.models.features import spatial_dropout

VERSION = 3

NEEDS = {"renofeation": "named stages"}


@dataclass(frozen=True)
class Params(delta_r.Params):
    """90000 + 30000 steps of 64; lr .01 cosine, then .005 constant; weight decay .005; snapshot every 500.

    `swa_steps` is the length of the second phase, 0 a quarter of the steps. `swa_snapshots` are spread evenly over it;
    `swa_freq` n takes a snapshot after its steps n, 2n, ... instead. The steps up to number `swa_start` take none
    (--swa_freq, --swa_start and torchcontrib's SWA).
    """

    steps: Positive = 120_000
    swa_lr: NotNegative = 5e-3
    swa_snapshots: Positive = 60
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    swa_steps: Annotated[int, Field(ge=0)] = 0
    swa_freq: Annotated[int, Field(ge=0)] = 0
    swa_start: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        """InputError also for phases that do not fit into the steps, and for an average of no snapshot."""
        super().__post_init__()
        if self.swa_steps >= self.steps:
            raise InputError(f"swa_steps={self.swa_steps}: the second phase is a part of all {self.steps} steps")
        if self.swa_freq and self.swa_snapshots != Params.swa_snapshots:
            raise InputError(f"swa_freq={self.swa_freq} and swa_snapshots={self.swa_snapshots}: give one of the two")
        averaging, every = self.averaging(), self.snapshot_every()
        if averaging and averaging // every * every <= self.swa_start:
            raise InputError(
                f"swa_freq={every}, swa_start={self.swa_start}: no snapshot is taken in the {averaging} steps of the "
                "second phase"
            )

    def averaging(self) -> int:
        """The number of steps of the second phase."""
        return self.swa_steps or self.steps // 4

    def snapshot_every(self) -> int:
        """The number of steps from one snapshot to the next."""
        return self.swa_freq or max(self.averaging() // self.swa_snapshots, 1)


class Method(delta_r.Method):
    """DELTA-R with spatial dropout after every stage, then weight averaging and new batch norm statistics."""

    params: Params
    extends = "delta-r"

    def phases(self) -> list[Phase]:
        params = self.params
        averaging, every = params.averaging(), params.snapshot_every()
        return [
            Phase("distil", params.steps - averaging, params.lr, params.schedule),
            Phase("average", averaging, params.swa_lr, "constant", average_every=every, average_after=params.swa_start),
        ]

    def finish(self, student: Network, batches: Callable[[], Iterator[Batch]]) -> None:
        with spatial_dropout(student.model, student.layers, self.params.dropout), torch.no_grad():
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
