"""RoLI: adversarial training from a linear head that was itself trained adversarially on the source's features.

Paper: RoLI 2024 (arXiv:2312.05716, CVPR), DongXzz/RoLI.
Loss: as `madry`.
Phases: two: the head alone, by SGD, the network in eval mode; then what `tune` says, by AdamW.
Options: `tune=lora`, `adapter` or `bias`; without its first phase (RanLI) it is `madry` with `head_init=focal`.
Deviations: the head's weights are those of its last step, the code takes the best on validation; the rate warms up step
by step, not by epochs of which the first has rate 0; LoRA starts with random A and B = 0, the released settings have
both 0, with which nothing but the head is trained; no stochastic depth; one batch in every pass, theirs keeps the
iterate at which the whole batch's loss was highest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from transferbench.base.errors import InputError
from transferbench.base.schedules import Schedule
from transferbench.methods import Decay, HeadInit, NotNegative, Optimiser, Padding, Phase, Positive, madry

VERSION = 1


@dataclass(frozen=True)
class Params(madry.Params):
    """The code's CIFAR-10 with Swin-B: 20 epochs of 703 batches of 64 for the head and as many for all weights; PGD-7
    of step 2/255 at 8/255; SGD at .05 for the head, AdamW at 1e-4 with decay .01, none on biases and norms, for the
    rest; half of each phase is warm-up, then cosine.

    `probe_steps` is the length of the first phase, 0 half of the steps; `probe_lr` its rate, `probe_decay` its weight
    decay.
    """

    steps: Positive = 28_120
    batch_size: Positive = 64
    lr: NotNegative = 1e-4
    weight_decay: NotNegative = 1e-2
    schedule: Schedule = "cosine"
    decay: Decay = "weights"
    crop_padding: Padding = "auto"
    optimiser: Optimiser = "adamw"
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.5
    head_init: HeadInit = "focal"
    probe_steps: Annotated[int, Field(ge=0)] = 0
    probe_lr: NotNegative = 0.05
    probe_decay: NotNegative = 0.0

    def __post_init__(self) -> None:
        """InputError where eps is no radius, or the first phase is not a part of the training."""
        super().__post_init__()
        if self.probe_steps >= self.steps:
            raise InputError(f"probe_steps={self.probe_steps}: the head's phase is a part of all {self.steps} steps")


class Method(madry.Method):
    """Adversarial training in two phases, of the head and then of what is tuned."""

    params: Params
    extends = "madry"
    needs_source = True

    def phases(self) -> list[Phase]:
        params = self.params
        probe = params.probe_steps or params.steps // 2
        head = Phase(
            "head",
            probe,
            params.probe_lr,
            params.schedule,
            lambda name: name.startswith(self.head),
            mode="eval",
            optimiser="sgd",
            weight_decay=params.probe_decay,
        )
        return [head, self.main(params.steps - probe)]
