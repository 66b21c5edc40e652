"""Auto-PGD's recurrence in Linf and L2 (Croce and Hein 2020, arXiv:2003.01690, Algorithm 1).

Momentum .75, step 2 eps, halved at checkpoints where the loss rose in at most 75 % of the window's steps or
the best loss stands still since a checkpoint that did not halve; a halved row restarts from its best point.
The order of floating-point operations is the reference implementation's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from transferbench.attacks import Keys, RowState
from transferbench.attacks.apgd_base import APGD, Objective, replace_rows_
from transferbench.threats import LinfBall, LpBall
from transferbench.threats.projections import into_l2_ball_, per_row, unit_l2_


def checkpoint_windows(n_iter: int) -> list[int]:
    """Entry i is the length of the window that ends at iteration i, else 0. For 100: 22, 19, 16, 13, 10, 7, 6, 6."""
    window, shortest, shrink = (max(int(share * n_iter), 1) for share in (0.22, 0.06, 0.03))
    ends = [0] * (n_iter + 1)
    at = window
    while at <= n_iter:
        ends[at] = window
        window = max(window - shrink, shortest)
        at += window
    return ends


def keyed_start(ball: LpBall, x: Tensor, keys: Keys) -> Tensor:
    """[B, ...]: AutoAttack's random start, drawn by key."""
    return ball.random_start(x, keys.noise)


class BallAPGD(APGD):
    """Auto-PGD in the ball of Linf or L2.

    `state["i"]` is the number of finished evaluations, n_iter at the last one. `share` is the weight of the step in a
    move, 1 in the first iteration and .75 in the others; the rest is momentum.
    """

    def __init__(
        self,
        id: str,
        objective: Objective,
        tries: int,
        ball: LpBall,
        n_iter: int,
        random_start: bool = True,
    ) -> None:
        super().__init__(id, objective, tries, ball)
        self.radius, self.random_start = ball.radius, random_start
        # Replay replaces it by starts from the reference's random numbers.
        self.start_point: Callable[[LpBall, Tensor, Keys], Tensor] = keyed_start
        self.passes = n_iter + 1
        self.windows = torch.tensor(checkpoint_windows(n_iter))

    def start(self, x: Tensor, y: Tensor, clean_logits: Tensor, keys: Keys) -> RowState:
        point = self.start_point(self.ball, x, keys) if self.random_start else x.clone()
        flat = torch.zeros(len(x), device=x.device)
        state = {
            "x": point,
            "clean": x,
            "target": self.targets(clean_logits, keys),
            "x_before": point.clone(),
            "x_best": point.clone(),
            "grad_best": torch.zeros_like(x),
            "loss_best": flat - math.inf,
            "loss_best_checked": flat.clone(),
            "loss_before": flat + math.inf,
            "rises": flat.clone(),
            "halved": torch.ones_like(flat, dtype=torch.bool),
            "step": flat + 2 * self.radius,
            "share": flat + 1,
            "i": torch.zeros_like(y),
        }
        if isinstance(self.ball, LinfBall):
            state["low"], state["high"] = self.ball.bounds(x)
        return state

    def step(self, state: RowState, output: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        x, i = state["x"], state["i"]
        better = loss > state["loss_best"]
        replace_rows_(better, (state["x_best"], x), (state["grad_best"], gradient))
        state["loss_best"] = torch.where(better, loss, state["loss_best"])
        state["rises"] += loss > state["loss_before"]
        # The first window compares its first loss with 0, not with the loss at the start: the reference reads a row of
        # its loss history that is not filled yet (index -1). With DLR this determines the first checkpoint.
        state["loss_before"] = loss.masked_fill(i == 0, 0)
        x, gradient = self._checkpoint(state, x, gradient)
        state["i"] = i + 1
        following = self._move(state, x, gradient)
        state["x_before"] = x
        state["share"].fill_(0.75)
        return following

    def _checkpoint(self, state: RowState, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Halve the step and return to the best point in the rows that meet a checkpoint's conditions."""
        self.windows = self.windows.to(x.device)
        window = self.windows.index_select(0, state["i"])
        if x.device.type == "cpu" and not bool(window.any()):
            return x, gradient
        due = window > 0
        # At the first checkpoint `halved` is True, so that there is no comparison with an earlier best loss.
        stalls = ~state["halved"] & (state["loss_best_checked"] >= state["loss_best"])
        halve = (state["rises"] <= window * 0.75) | stalls
        state["halved"] = torch.where(due, halve, state["halved"])
        state["loss_best_checked"] = torch.where(due, state["loss_best"], state["loss_best_checked"])
        state["rises"] = torch.where(due, torch.zeros_like(state["rises"]), state["rises"])
        restart = due & halve
        state["step"] = torch.where(restart, state["step"] / 2, state["step"])
        return self._back_to_best(state, x, gradient, restart)

    def _move(self, state: RowState, x: Tensor, gradient: Tensor) -> Tensor:
        """A projected step, then projected momentum; in place, because new buffers cost page faults."""
        share = per_row(state["share"], x)
        direction = gradient.sign_() if isinstance(self.ball, LinfBall) else unit_l2_(gradient)
        point = self._into_ball_(state, direction.mul_(per_row(state["step"], x)).add_(x))
        momentum = torch.sub(x, state["x_before"], out=state["x_before"]).mul_(1 - share)
        return self._into_ball_(state, momentum.add_(point.sub_(x).mul_(share).add_(x)))

    def _into_ball_(self, state: RowState, point: Tensor) -> Tensor:
        """Project the points in place."""
        if isinstance(self.ball, LinfBall):
            return point.clamp_(state["low"], state["high"])
        return into_l2_ball_(point.sub_(state["clean"]), state["clean"], self.radius)

    def candidate(self, state: RowState) -> Tensor:
        return torch.ones_like(state["halved"])
