"""Madry PGD-k and FGSM, as LwF, IGAM and Free adversarial training evaluate.

x <- clip(x + a * sign(gradient)) into the ball and into [0,1], from x + U(-eps, eps) clipped to [0,1]. In L2 (IGAM's
`attack_norm` 2) the step has length a along each image's gradient, and the start is AutoAttack's in L2.

Paper: Madry et al. 2018 (arXiv:1706.06083).
Threats: Linf; pgd L2 as well.
Holds: the victim.
Counts: the end point, as in the papers' code.
Deviations: in L2 IGAM's code takes one norm over the whole batch, and its start is as large as eps in every pixel; here
every image has its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from transferbench.attacks import Keys, RowState, losses, parameters, require
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import L2Ball, LinfBall, Threat
from transferbench.threats.projections import unit_l2

IDS = {
    "pgd": "Madry PGD: k steps from a random start, CE or CW margin; the end point counts",
    "fgsm": "fast gradient sign: one step of size eps from the clean image",
}
PARAMETERS = {
    "pgd": {"k": 20, "step": 0.25, "restarts": 1, "random_start": True, "loss": "ce", "kappa": 0.0, "eot": 0},
    "fgsm": {"eot": 0},
}
VERSION = 1


@dataclass(frozen=True)
class PGDSettings:
    """`k` steps of size `step`, a fraction of eps (the papers' 2/255 at eps 8/255 is 0.25), `restarts` tries.

    `loss` is `ce` (cross-entropy) or `cw` (Carlini and Wagner's margin with `kappa`).
    """

    k: int = 20
    step: float = 0.25
    random_start: bool = True
    loss: str = "ce"
    kappa: float = 0.0
    restarts: int = 1


class PGD:
    """Projected steps of one length in the ball. Only the end point counts."""

    needs_grad = True
    counts: Literal["last"] = "last"
    sees: Literal["victim"] = "victim"

    def __init__(self, id: str, ball: LinfBall | L2Ball, settings: PGDSettings) -> None:
        self.id, self.ball, self.settings = id, ball, settings
        self.step_size = settings.step * ball.radius
        self.tries, self.passes = settings.restarts, settings.k + 1

    def start(self, x: Tensor, y: Tensor, clean_logits: Tensor, keys: Keys) -> RowState:
        start = x.clone()
        if self.settings.random_start and isinstance(self.ball, LinfBall):
            start = self.ball.displace(x, 2 * keyed_random.uniform(keys.noise, tuple(x.shape[1:])) - 1)
        elif self.settings.random_start:
            start = self.ball.random_start(x, keys.noise)
        return {"x": start, "clean": x, "evaluated": torch.zeros_like(y)}

    def loss(self, output: Tensor, y: Tensor, state: RowState) -> Tensor:
        if self.settings.loss == "ce":
            return losses.cross_entropy(output, y)
        return losses.cw_margin(output, y, self.settings.kappa)

    def step(self, state: RowState, output: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        state["evaluated"] += 1
        direction = gradient.sign() if isinstance(self.ball, LinfBall) else unit_l2(gradient)
        return self.ball.project(state["clean"], state["x"] + self.step_size * direction)

    def candidate(self, state: RowState) -> Tensor:
        return torch.ones_like(state["evaluated"], dtype=torch.bool)

    def best(self, state: RowState) -> Tensor:
        return state["x"]


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> PGD:
    """Parameters of pgd: k=20 steps, step=0.25 (of eps), restarts=1, random_start=True, loss=ce|cw, kappa=0 (of cw);
    of both: eot=0, the number of draws of every gradient, 0 being 20 for a randomised model and 1 for others.

    InputError for a bad value, or a threat other than Linf and, of pgd, L2.
    """
    if spec.id == "fgsm":
        parameters(spec)
        return PGD("fgsm", require(spec, threat, LinfBall), PGDSettings(k=1, step=1.0, random_start=False))
    ball = require(spec, threat, LinfBall, L2Ball)
    assert isinstance(ball, LinfBall | L2Ball)
    return PGD("pgd", ball, settings_of(spec))


def settings_of(spec: AttackSpec) -> PGDSettings:
    """The settings in a specification. InputError for an unknown parameter or a bad value."""
    # The engine draws gradients (engine/draws.py).
    params = {name: value for name, value in parameters(spec).items() if name != "eot"}
    settings = PGDSettings(**params)
    if settings.loss not in ("ce", "cw"):
        raise InputError(f"attack {spec.id}: loss={settings.loss!r} is not one of ce, cw")
    if not 0 < settings.step < math.inf:
        raise InputError(f"attack {spec.id}: step={settings.step} must be a number above 0, a fraction of eps")
    if settings.restarts > 1 and not settings.random_start:
        raise InputError(f"attack {spec.id}: restarts={settings.restarts} without a random start are one try repeated")
    if not 0 <= settings.kappa < math.inf:
        raise InputError(f"attack {spec.id}: kappa={settings.kappa} must be at least 0")
    if settings.loss == "ce" and "kappa" in dict(spec.params):
        raise InputError(f"attack {spec.id}: kappa belongs to loss=cw, and the loss is ce")
    if settings.k < 1 or settings.restarts < 1:
        raise InputError(f"attack {spec.id}: k={settings.k} and restarts={settings.restarts} must be at least 1")
    return settings
