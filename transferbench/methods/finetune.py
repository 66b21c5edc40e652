"""Natural fine-tuning: every weight trained on clean target images from the source, new head.

Paper: the baseline of Renofeation's tables (Chin et al. 2020, arXiv:2002.02998) as ReMoS scripts it.
Loss: CE.
Phases: one, all weights.
Deviations: momentum .9, ReMoS has 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from transferbench.methods import BaseMethod, BaseParams, NotNegative

VERSION = 2


@dataclass(frozen=True)
class Params(BaseParams):
    """The baseline of Renofeation's tables as ReMoS scripts it: 30000 steps of 64, lr .005, weight decay 1e-4.

    No script of Renofeation itself ships this baseline; ReMoS uses momentum 0, we the common .9. An epoch's last batch
    is smaller, as in Renofeation's code.
    """

    lr: NotNegative = 5e-3
    partial_batches: bool = True


class Method(BaseMethod[Params]):
    """The defaults of BaseMethod."""
