"""DELTA-R: re-initialisation and feature distillation, without Renofeation's dropout and averaging.

The settings are those of Renofeation's first phase.

Paper: named in ReMoS's scripts, after Chin et al. 2020 (arXiv:2002.02998), whose own scripts do not have it.
Loss: as `delta`.
Phases: one, all weights, from a re-initialised network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transferbench.methods import Network, NotNegative, Positive, delta, reinitialise

VERSION = 3

NEEDS = {"delta-r": "named stages"}


@dataclass(frozen=True)
class Params(delta.Params):
    """90000 steps of 64, lr .01 cosine, weight decay .005, lambda_f 5."""

    steps: Positive = 90_000
    lr: NotNegative = 1e-2
    weight_decay: NotNegative = 5e-3
    feat_lmda: NotNegative = 5.0


class Method(delta.Method):
    """DELTA from re-initialised weights."""

    extends = "delta"
    can_keep_head = False

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        student = super().student(source, fresh, num_classes)
        reinitialise(student.model)
        return student
