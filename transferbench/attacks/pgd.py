"""Madry PGD-k and FGSM in Linf, as LwF, IGAM and Free adversarial training evaluate.

x <- clip(x + a * sign(gradient)) into the ball and into [0,1], from x + U(-eps, eps) clipped to [0,1].

Paper: Madry et al. 2018 (arXiv:1706.06083).
Threats: Linf.
Holds: the victim.
Counts: the end point, as in the papers' code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from transferbench.attacks import Keys, State, losses, parameters, require
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat

IDS = {
    "pgd": "Madry PGD: k sign steps from a random start, CE or CW margin; the end point counts",
    "fgsm": "fast gradient sign: one step of size eps from the clean image",
}
VERSION = 1


class PGD:
    """`step` is a fraction of eps: the papers' 2/255 at eps 8/255 is 0.25."""

    needs_grad = True
    counts: Literal["last"] = "last"
    sees: Literal["victim"] = "victim"

    def __init__(
        self,
        id: str,
        ball: LinfBall,
        k: int,
        step: float,
        *,
        random_start: bool = True,
        loss: str = "ce",
        kappa: float = 0.0,
        restarts: int = 1,
    ) -> None:
        self.id, self.ball, self.step_size, self.random_start = id, ball, step * ball.radius, random_start
        self.loss_name, self.kappa = loss, kappa
        self.tries, self.passes = restarts, k + 1

    def start(self, x: Tensor, y: Tensor, clean_logits: Tensor, keys: Keys) -> State:
        start = x.clone()
        if self.random_start:
            start = self.ball.displace(x, 2 * keyed_random.uniform(keys.noise, tuple(x.shape[1:])) - 1)
        return {"x": start, "clean": x, "evaluated": torch.zeros_like(y)}

    def loss(self, output: Tensor, y: Tensor, state: State) -> Tensor:
        if self.loss_name == "ce":
            return losses.cross_entropy(output, y)
        return losses.cw_margin(output, y, self.kappa)

    def step(self, state: State, output: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        state["evaluated"] += 1
        return self.ball.project(state["clean"], state["x"] + self.step_size * gradient.sign())

    def candidate(self, state: State) -> Tensor:
        return torch.ones_like(state["evaluated"], dtype=torch.bool)

    def best(self, state: State) -> Tensor:
        return state["x"]


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> PGD:
    """pgd: k=20, step=0.25 (of eps), restarts=1, loss=ce|cw, kappa=0. InputError for a threat but Linf."""
    ball = require(spec, threat, LinfBall)
    if spec.id == "fgsm":
        parameters(spec)
        return PGD("fgsm", ball, 1, 1.0, random_start=False)
    given = parameters(spec, k=20, step=0.25, restarts=1, random_start=True, loss="ce", kappa=0.0)
    if given["loss"] not in ("ce", "cw"):
        raise InputError(f"attack pgd: loss={given['loss']!r} is not one of ce, cw")
    k, restarts = int(given["k"]), int(given["restarts"])
    if k < 1 or restarts < 1:
        raise InputError(f"attack pgd: k={k} and restarts={restarts} must be at least 1")
    return PGD(
        "pgd",
        ball,
        k,
        float(given["step"]),
        random_start=bool(given["random_start"]),
        loss=str(given["loss"]),
        kappa=float(given["kappa"]),
        restarts=restarts,
    )
