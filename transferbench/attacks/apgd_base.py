"""The common part of Auto-PGD in Linf, L2 and L1: the objective and the target classes."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from transferbench.attacks import Keys, RowState, losses
from transferbench.threats import LpBall

Objective = Literal["ce", "dlr", "dlr-targeted"]


def replace_rows_(rows: Tensor, *pairs: tuple[Tensor, Tensor]) -> None:
    """For each pair (old, new), copy the rows of `new` to `old` in place where `rows` bool [B] is True.

    Only these rows are read and written: in most iterations of APGD few rows improve.
    """
    indices = rows.nonzero().flatten()
    if len(indices) > 0:
        for old, new in pairs:
            old.index_copy_(0, indices, new.index_select(0, indices))


class APGD:
    """The base class of BallAPGD (Linf and L2) and L1APGD, which hold the recurrences. Any iterate counts."""

    needs_grad = True
    counts: Literal["any"] = "any"
    sees: Literal["victim"] = "victim"
    passes: int

    def __init__(self, id: str, objective: Objective, tries: int, ball: LpBall) -> None:
        self.id, self.objective, self.tries, self.ball = id, objective, tries, ball

    def targets(self, clean_logits: Tensor, keys: Keys) -> Tensor:
        """int64 [B]: the target classes; try k of the targeted attack takes the class of the (k+2)-th largest logit."""
        if self.objective != "dlr-targeted":
            return keys.tries.clone()
        return losses.ranked_target(clean_logits, keys.tries + 1)

    def loss(self, output: Tensor, y: Tensor, state: RowState) -> Tensor:
        if self.objective == "ce":
            return losses.cross_entropy(output, y)
        if self.objective == "dlr":
            return losses.dlr(output, y)
        return losses.targeted_dlr(output, y, state["target"])

    def _back_to_best(self, state: RowState, x: Tensor, gradient: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(points, gradients) to continue from: the best ones where `rows` bool [B]. Overwrites the gradient."""
        if x.device.type == "cpu" and not bool(rows.any()):
            return x, gradient
        point = x.clone()
        replace_rows_(rows, (point, state["x_best"]), (gradient, state["grad_best"]))
        return point, gradient

    def best(self, state: RowState) -> Tensor:
        return state["x_best"]
