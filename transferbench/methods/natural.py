"""Natural training from scratch: cross-entropy on clean images, no source.

Loss: CE.
Phases: one, all weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transferbench.base.schedules import Schedule
from transferbench.methods import BaseMethod, BaseParams, Network, NotNegative

VERSION = 2


@dataclass(frozen=True)
class Params(BaseParams):
    """SGD with a one-cycle schedule up to lr .1: the usual recipe for a small residual network."""

    lr: NotNegative = 0.1
    weight_decay: NotNegative = 5e-4
    schedule: Schedule = "onecycle"


class Method(BaseMethod[Params]):
    """Cross-entropy from random weights, in the requested architecture or the source's."""

    can_keep_head = False

    needs_source = False
    uses_source = False

    def network(self, source: str, requested: str) -> str:
        return requested or source

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        return fresh()
