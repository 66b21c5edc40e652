"""Linear probing: a new head on the source's frozen features, trained on clean target images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transferbench.methods import BaseMethod, BaseParams, Network, NotNegative, Phase, Positive, head_only
from transferbench.schedules import Schedule

VERSION = 1


@dataclass(frozen=True)
class Params(BaseParams):
    """Steps 1..10000 of LwF's code (Shafahi et al. 2020, arXiv:1905.08232): SGD .9, lr .001, batch 128."""

    steps: Positive = 10_000
    batch_size: Positive = 128
    lr: NotNegative = 1e-3
    weight_decay: NotNegative = 2e-4
    schedule: Schedule = "constant"


class Method(BaseMethod[Params]):
    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        student = super().student(source, fresh, num_classes)
        self.head = head_only(student.layers)
        return student

    def phases(self) -> list[Phase]:
        params = self.params
        return [Phase("head", params.steps, params.lr, params.schedule, self.head, freeze_statistics=True)]
