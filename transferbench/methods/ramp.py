"""RAMP: E-AT's fine-tuning with logit pairing of two norms, on the worst point of each example.

Paper: Jiang and Singh 2024 (arXiv:2402.06827, NeurIPS), uiuc-focal-lab/RAMP.
Loss: CE at the point of higher loss of both norms' APGD + lambda times the mean of KL(f(x_1) || f(x_2)) over the
examples that are right at x_1, x_1 and x_2 being the points of the first and of the second norm.
Phases: one, all weights.
Options: `gp_every` n projects gradients every n steps, an epoch in the code, which does so from scratch alone: a copy
of the weights takes the same steps on clean images, and the new weights are, entry of the state by entry, the old ones
+ 1/2 g_a + 1/2 max(cos(g_a, g_n), 0) g_n, with the changes g_a of the training and g_n of the copy.
Deviations: the points of higher loss are chosen with the network in eval mode, in which they were searched.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from transferbench.attacks import lockstep
from transferbench.base import schedules
from transferbench.base.errors import InputError
from transferbench.methods import Batch, Network, NotNegative, eat

VERSION = 1


@dataclass(frozen=True)
class Params(eat.Params):
    """E-AT's optimiser and attacks, Linf and then L1; lambda 1.5 in fine-tuning (from scratch 5, 2 for WideResNets).

    `l_norms` are the two norms, the first that of x_1; `pair_lmda` is lambda.
    """

    pair_lmda: NotNegative = 1.5
    gp_every: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        """InputError as eat, for another number of norms, and for a projection of a part of the weights."""
        super().__post_init__()
        if len(self.l_norms.split(",")) != 2:
            raise InputError(f"ramp pairs two norms, l_norms={self.l_norms!r} names another number")
        if self.gp_every and self.tune != "all":
            raise InputError(f"ramp: gp_every={self.gp_every} is for the training of all weights, not tune={self.tune}")


class Method(eat.Method):
    """`old`: the state when the steps of a projection began; `natural`: the copy that trains on clean images."""

    params: Params
    extends = "eat"

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.old: dict[str, Tensor] = {}

    @property
    def passes_per_step(self) -> float:
        return 2 * self.params.at_iter + 3 + bool(self.params.gp_every)

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        student = super().student(source, fresh, num_classes)
        self.form = student.model
        return student

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        if self.params.gp_every and batch.step % self.params.gp_every == 0:
            self.old = {name: value.detach().clone() for name, value in student.model.state_dict().items()}
            self._copy(self.old)
        first, second = (self.worst(student, batch, norm) for norm in self.attacks)
        with lockstep.eval_mode(student.model) as network, torch.no_grad():
            losses = [F.cross_entropy(network(x), batch.y, reduction="none") for x in (first, second)]
        higher = (losses[0] >= losses[1]).view(-1, *[1] * (first.dim() - 1))
        logits = [student.model(x) for x in (first, second, torch.where(higher, first, second))]
        parts = {"adversarial ce": self.cross_entropy(logits[2], batch.y)}
        right = logits[0].argmax(1) == batch.y
        if bool(right.any()):
            log_first, log_second = (F.log_softmax(one[right], 1) for one in logits[:2])
            divergence = F.kl_div(log_second, log_first, reduction="batchmean", log_target=True)
            parts["pairing"] = self.params.pair_lmda * divergence
        else:
            parts["pairing"] = logits[0].new_zeros(())
        return parts

    def after_step(self, student: Network, batch: Batch) -> None:
        params = self.params
        if not params.gp_every:
            return
        for group in self.optimiser.param_groups:
            group["lr"] = params.lr * schedules.warmed(params.schedule, batch.step, params.steps, params.warm_up)
        self.natural.train()
        self.optimiser.zero_grad(set_to_none=True)
        self.cross_entropy(self.natural(batch.x), batch.y).backward()
        self.optimiser.step()
        if (batch.step + 1) % params.gp_every == 0:
            state = projected(self.old, student.model.state_dict(), self.natural.state_dict())
            student.model.load_state_dict(state)

    def memory(self) -> dict[str, Any]:
        if not self.old:
            return super().memory()
        copied = {"natural": self.natural.state_dict(), "optimiser": self.optimiser.state_dict()}
        return {**super().memory(), "old": self.old, **copied}

    def recall(self, memory: dict[str, Any]) -> None:
        super().recall(memory)
        if "old" in memory:
            self.old = memory["old"]
            self._copy(memory["natural"])
            self.optimiser.load_state_dict(memory["optimiser"])

    def _copy(self, state: dict[str, Tensor]) -> None:
        """Make the copy that trains on clean images, of that state, with an optimiser of its own."""
        params = self.params
        self.natural: nn.Module = copy.deepcopy(self.form).requires_grad_(True)
        self.natural.load_state_dict(state)
        self.optimiser = torch.optim.SGD(
            self.natural.parameters(), params.lr, momentum=params.momentum, weight_decay=params.weight_decay
        )


def projected(old: dict[str, Tensor], trained: dict[str, Tensor], natural: dict[str, Tensor]) -> dict[str, Tensor]:
    """RAMP's projection of the states' changes; numbers alone (batch counters) are those of the training."""
    made = {}
    for name, start in old.items():
        if start.dim() == 0:
            made[name] = trained[name]
            continue
        mine, theirs = (state[name] - start for state in (trained, natural))
        cosine = F.cosine_similarity(mine.flatten(), theirs.flatten(), dim=0).clamp(min=0)
        made[name] = start + 0.5 * mine + 0.5 * cosine * theirs
    return made
