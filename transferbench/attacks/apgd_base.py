"""The common part of Auto-PGD in Linf, L2 and L1: the objective, the target classes, the noise of the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from transferbench.attacks import Keys, State, losses
from transferbench.threats import LpBall

Objective = Literal["ce", "dlr", "dlr-targeted"]
Draw = Callable[[LpBall, Tensor, Keys], Tensor]


def keyed_draw(ball: LpBall, x: Tensor, keys: Keys) -> Tensor:
    """[B, ...]: the start's noise, by key."""
    return ball.noise(keys.noise, tuple(x.shape[1:]))


def replace_rows_(rows: Tensor, *pairs: tuple[Tensor, Tensor]) -> None:
    """Of each pair (kept, new), write the rows of `new` over those of `kept` where `rows` bool [B] is True.

    Only these rows are touched: in most iterations of APGD few rows improve, and a network's pass has emptied the
    caches.
    """
    places = rows.nonzero().flatten()
    if len(places) > 0:
        for kept, new in pairs:
            kept.index_copy_(0, places, new.index_select(0, places))


class APGD:
    """The subclasses in `apgd_ball` and `apgd_l1` hold the recurrences. Any iterate counts."""

    needs_grad = True
    counts: Literal["any"] = "any"
    sees: Literal["victim"] = "victim"
    passes: int

    def __init__(self, id: str, objective: Objective, tries: int, ball: LpBall) -> None:
        self.id, self.objective, self.tries, self.ball = id, objective, tries, ball
        # Replay replaces it by the reference's own draws.
        self.draw: Draw = keyed_draw

    def targets(self, clean_logits: Tensor, keys: Keys) -> Tensor:
        """int64 [B]: try k of the targeted attack aims at the class ranked k+1 after the prediction."""
        if self.objective != "dlr-targeted":
            return keys.tries.clone()
        return losses.ranked_target(clean_logits, keys.tries + 1)

    def loss(self, output: Tensor, y: Tensor, state: State) -> Tensor:
        if self.objective == "ce":
            return losses.cross_entropy(output, y)
        if self.objective == "dlr":
            return losses.dlr(output, y)
        return losses.targeted_dlr(output, y, state["target"])

    def _back_to_best(self, state: State, x: Tensor, gradient: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Point and gradient to go on from: the best ones where `rows` [B] says so. Writes over the gradient."""
        if x.device.type == "cpu" and not bool(rows.any()):
            return x, gradient
        point = x.clone()
        replace_rows_(rows, (point, state["x_best"]), (gradient, state["grad_best"]))
        return point, gradient

    def best(self, state: State) -> Tensor:
        return state["x_best"]
