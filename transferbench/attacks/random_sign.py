"""The noise control of source-only attacks: random signs at the full radius, no network asked.

A source-only attack that flips k tries out of many examples means something only beside as many random draws
at the same radius, counted in the same way (any of k).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from transferbench.attacks import Keys, State, parameters
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import SEED_BALL, AttackSpec, ThreatModel
from transferbench.threats import geometry

IDS = {"random-sign": "noise control: k draws of random signs at the full radius, no network asked"}
VERSION = 1


class RandomSign:
    id = "random-sign"
    needs_grad = False
    counts: Literal["last"] = "last"
    sees: Literal["source-features"] = "source-features"
    passes = 1

    def __init__(self, eps: float, draws: int, seed_ball: bool = False) -> None:
        self.eps, self.tries, self.seed_ball = eps, draws, seed_ball

    def start(self, x: Tensor, y: Tensor, clean_logits: Tensor, keys: Keys) -> State:
        signs = keyed_random.signs(keys.noise, tuple(x.shape[1:]))
        if self.seed_ball:
            moved = x + self.eps * geometry.seed_scale(x) * signs
            return {"x": torch.clamp(moved, *geometry.seed_bounds(x, self.eps))}
        return {"x": (x + self.eps * signs).clamp(0, 1)}

    def loss(self, output: Tensor, y: Tensor, state: State) -> Tensor:
        return output.sum(1) * 0

    def step(self, state: State, output: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        return state["x"]

    def candidate(self, state: State) -> Tensor:
        return torch.ones(len(state["x"]), dtype=torch.bool, device=state["x"].device)

    def best(self, state: State) -> Tensor:
        return state["x"]


def build(spec: AttackSpec, threat: ThreatModel, num_classes: int) -> RandomSign:
    """draws=8. InputError for a threat but Linf and renofeation-seed."""
    if threat.norm not in ("Linf", SEED_BALL):
        raise InputError(f"attack {spec.id} is defined in Linf and {SEED_BALL} only, not in {threat.norm}")
    draws = int(parameters(spec, draws=8)["draws"])
    if draws < 1:
        raise InputError(f"attack {spec.id}: draws={draws} must be at least 1")
    return RandomSign(float(threat.eps), draws, threat.norm == SEED_BALL)
