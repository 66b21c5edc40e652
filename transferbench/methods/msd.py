"""MSD: multi steepest descent, one attack on the union of three balls.

From the clean image, every step makes the steepest step of each norm, projects it onto that norm's ball and keeps,
example by example, the candidate of highest loss. Steps: Linf alpha sign(g); L2 alpha g/||g||_2; L1 the k entries of
largest |g| that the box lets move, by alpha 20/k each, k drawn anew each step from 5..20.

Paper: Maini et al. 2020 (arXiv:1909.04068), robust_union's `msd_v0`.
Loss: CE at the best point of all steps of steepest descent over three balls at once.
Phases: one, all weights.
Deviations: the projection onto L1 ball and box is exact, theirs is onto the ball and then the box; candidates of a step
are compared with the network in eval mode.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.attacks import lockstep
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.schedules import Schedule
from transferbench.base.specifications import Norm
from transferbench.methods import (
    AdversarialMethod,
    AdversarialParams,
    Batch,
    Network,
    NotNegative,
    Padding,
    Positive,
)
from transferbench.threats import L1Ball, L2Ball, LinfBall, LpBall
from transferbench.threats.projections import per_row, unit_l2

VERSION = 2

_SPARSEST, _DENSEST = 5, 20


@dataclass(frozen=True)
class Params(AdversarialParams):
    """E-AT's optimiser (1173 steps of 128 on CIFAR-10), robust_union's 50 steps and step sizes: .005/.03 of eps in
    Linf, .05 and .05 in L2 and L1. `step_linf` is a fraction of eps, the others are absolute
    at the whole radius, and smaller where `eps_schedule` makes it smaller."""

    steps: Positive = 1173
    batch_size: Positive = 128
    lr: NotNegative = 0.05
    weight_decay: NotNegative = 5e-4
    schedule: Schedule = "thirds"
    crop_padding: Padding = 4
    partial_batches: bool = True
    l_eps: str = "8/255,0.5,12"
    at_iter: Positive = 50
    step_linf: NotNegative = 1 / 6
    step_l2: NotNegative = 0.05
    step_l1: NotNegative = 0.05

    def __post_init__(self) -> None:
        """InputError where l_eps are not three radii."""
        super().__post_init__()
        self.balls()

    def balls(self) -> list[LpBall]:
        """The balls of Linf, L2 and L1."""
        radii = self.l_eps.split(",")
        if len(radii) != 3:
            raise InputError(f"msd: l_eps={self.l_eps!r} must name the radii of Linf, L2 and L1")
        return [kind.parse(eps) for kind, eps in zip((LinfBall, L2Ball, L1Ball), radii, strict=True)]


class Method(AdversarialMethod[Params]):
    """Cross-entropy at the points of a joint attack in three norms."""

    extends = "apgd-at"

    @property
    def passes_per_step(self) -> float:
        return self.params.at_iter + 1

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.balls = {ball.name: ball for ball in params.balls()}

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        x = batch.x
        if self.radius(self.balls["Linf"].eps, batch.step) is not None:
            with lockstep.eval_mode(student.model) as attacked:
                x = self.worst(attacked, batch)
        return {"adversarial ce": self.cross_entropy(student.model(x), batch.y)}

    def worst(self, network: nn.Module, batch: Batch) -> Tensor:
        """[B, ...]: the point of highest loss over all steps, the clean image included."""
        point, (loss, gradient) = batch.x, _ascent(network, batch.x, batch.y)
        best, highest = point, loss
        for step in range(self.params.at_iter):
            candidates = [self.candidate(norm, batch, point, gradient, step) for norm in self.balls]
            losses, gradients = map(torch.stack, zip(*(_ascent(network, c, batch.y) for c in candidates), strict=True))
            at = (losses.argmax(0), torch.arange(len(point), device=point.device))
            point, loss, gradient = torch.stack(candidates)[at], losses[at], gradients[at]
            better = loss > highest
            best = torch.where(per_row(better, best), point, best)
            highest = torch.where(better, loss, highest)
        return best

    def candidate(self, norm: Norm, batch: Batch, point: Tensor, gradient: Tensor, step: int) -> Tensor:
        """The steepest step of one norm from the point, inside that norm's ball and the box."""
        params, whole = self.params, self.balls[norm]
        eps = self.radius(whole.eps, batch.step) or whole.eps
        ball, share = type(whole)(eps), float(eps.value / whole.eps.value)
        if norm == "Linf":
            moved = point + params.step_linf * ball.radius * gradient.sign()
        elif norm == "L2":
            moved = point + share * params.step_l2 * unit_l2(gradient)
        else:
            drawn = keyed_random.uniform(
                torch.tensor([keyed_random.stream("msd", params.seed, batch.step, step)]), (1,)
            )
            k = _SPARSEST + int(float(drawn) * (_DENSEST - _SPARSEST + 1))
            moved = point + share * params.step_l1 * 20 / k * _sparse_sign(point, gradient, k)
        return ball.project(batch.x, moved)


def _sparse_sign(point: Tensor, gradient: Tensor, k: int) -> Tensor:
    """The sign of the k entries of largest |gradient| among those that can move in this direction inside [0,1]."""
    stuck = ((point <= 0) & (gradient < 0)) | ((point >= 1) & (gradient > 0))
    size = gradient.abs().masked_fill(stuck, 0).flatten(1)
    mask = torch.zeros_like(size).scatter(1, size.topk(min(k, size.shape[1]), dim=1).indices, 1.0)
    return (mask * (size > 0)).view_as(gradient) * gradient.sign()


def _ascent(network: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(loss [B], its gradient [B, ...] w.r.t. x)."""
    _, loss, gradient = lockstep.forward_backward(
        network, x, lambda output: F.cross_entropy(output, y, reduction="none"), True
    )
    return loss, gradient
