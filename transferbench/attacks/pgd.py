"""Madry PGD-k and FGSM in Linf, as LwF, IGAM and Free adversarial training evaluate.

x <- clip(x + a * sign(gradient)) into the ball and into [0,1], from x + U(-eps, eps) clipped to [0,1]
(Madry et al. 2018, arXiv:1706.06083). Only the end point counts, as in the seeds' code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from transferbench.attacks import Keys, State, losses, parameters
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.threats import geometry

IDS = {
    "pgd": "Madry PGD: k sign steps from a random start, CE or CW margin; the end point counts",
    "fgsm": "fast gradient sign: one step of size eps from the clean image",
}
VERSION = 1


class PGD:
    """`step` is a fraction of eps: the seeds' 2/255 at eps 8/255 is 0.25."""

    needs_grad = True
    counts: Literal["last"] = "last"
    sees: Literal["victim"] = "victim"

    def __init__(
        self, id: str, eps: float, k: int, step: float, random: bool, loss: str, kappa: float, restarts: int
    ) -> None:
        self.id, self.eps, self.step_size, self.random = id, eps, step * eps, random
        self.loss_name, self.kappa = loss, kappa
        self.tries, self.passes = restarts, k + 1

    def start(self, x: Tensor, y: Tensor, clean_logits: Tensor, keys: Keys) -> State:
        start = x.clone()
        if self.random:
            noise = 2 * keyed_random.uniform(keys.noise, tuple(x.shape[1:])) - 1
            start = (x + self.eps * noise).clamp(0, 1)
        return {"x": start, "clean": x, "evaluated": torch.zeros_like(y)}

    def loss(self, output: Tensor, y: Tensor, state: State) -> Tensor:
        if self.loss_name == "ce":
            return losses.cross_entropy(output, y)
        return losses.cw_margin(output, y, self.kappa)

    def step(self, state: State, output: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        state["evaluated"] += 1
        return geometry.project("Linf", state["clean"], state["x"] + self.step_size * gradient.sign(), self.eps)

    def candidate(self, state: State) -> Tensor:
        return torch.ones_like(state["evaluated"], dtype=torch.bool)

    def best(self, state: State) -> Tensor:
        return state["x"]


def build(spec: AttackSpec, threat: ThreatModel, num_classes: int) -> PGD:
    """pgd: k=20, step=0.25 (of eps), restarts=1, loss=ce|cw, kappa=0. InputError for a norm but Linf."""
    if threat.norm != "Linf":
        raise InputError(f"attack {spec.id} is defined in Linf only, not in {threat.norm}")
    eps = float(threat.eps)
    if spec.id == "fgsm":
        parameters(spec)
        return PGD("fgsm", eps, 1, 1.0, False, "ce", 0.0, 1)
    given = parameters(spec, k=20, step=0.25, restarts=1, random_start=True, loss="ce", kappa=0.0)
    if given["loss"] not in ("ce", "cw"):
        raise InputError(f"attack pgd: loss={given['loss']!r} is not one of ce, cw")
    k, restarts = int(given["k"]), int(given["restarts"])
    if k < 1 or restarts < 1:
        raise InputError(f"attack pgd: k={k} and restarts={restarts} must be at least 1")
    return PGD(
        "pgd",
        eps,
        k,
        float(given["step"]),
        bool(given["random_start"]),
        str(given["loss"]),
        float(given["kappa"]),
        restarts,
    )
