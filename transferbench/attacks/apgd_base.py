"""What Auto-PGD's three norms share: the objective, the target classes, the draw of the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from transferbench.attacks import Keys, State, losses
from transferbench.base import keyed_random
from transferbench.base.specifications import Norm
from transferbench.threats import geometry

Objective = Literal["ce", "dlr", "dlr-targeted"]
Draw = Callable[[Norm, Tensor, Keys], Tensor]


def keyed_draw(norm: Norm, x: Tensor, keys: Keys) -> Tensor:
    """[B, ...]: the start's noise, uniform on [-1, 1) for Linf and Gaussian for L2 and L1, by key."""
    shape = tuple(x.shape[1:])
    if norm == "Linf":
        return 2 * keyed_random.uniform(keys.noise, shape) - 1
    return keyed_random.normal(keys.noise, shape)


class APGD:
    """The common part; `apgd_ball` and `apgd_l1` hold the recurrences. Any iterate counts."""

    needs_grad = True
    counts: Literal["any"] = "any"
    sees: Literal["victim"] = "victim"
    norm: Norm
    passes: int

    def __init__(self, id: str, objective: Objective, tries: int) -> None:
        self.id, self.objective, self.tries = id, objective, tries
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
        geometry.replace_rows_(rows, (point, state["x_best"]), (gradient, state["grad_best"]))
        return point, gradient

    def best(self, state: State) -> Tensor:
        return state["x_best"]
