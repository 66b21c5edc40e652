"""The noise control of source-only attacks: random signs at the full radius, without any network.

A source-only attack that flips examples in any of k tries means something only next to as many random draws at the same
radius, counted in the same way (any of k).

Threats: Linf, `renofeation`.
Holds: nothing.
Counts: every draw.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from transferbench.attacks import Keys, RowState, parameters, require
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import BoundedThreat, LinfBall, RenofeationBox, Threat

IDS = {"random-sign": "noise control: k draws of random signs at the full radius, without a network"}
PARAMETERS = {"random-sign": {"draws": 8}}
VERSION = 1


class RandomSign:
    """Every try changes every entry by plus or minus the radius."""

    id = "random-sign"
    needs_grad = False
    counts: Literal["last"] = "last"
    sees: Literal["source-features"] = "source-features"
    passes = 1

    def __init__(self, threat: BoundedThreat, draws: int) -> None:
        self.threat, self.tries = threat, draws

    def start(self, x: Tensor, y: Tensor, clean_logits: Tensor, keys: Keys) -> RowState:
        return {"x": self.threat.displace(x, keyed_random.signs(keys.noise, tuple(x.shape[1:])))}

    def loss(self, output: Tensor, y: Tensor, state: RowState) -> Tensor:
        return output.sum(1) * 0

    def step(self, state: RowState, output: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        return state["x"]

    def candidate(self, state: RowState) -> Tensor:
        return torch.ones(len(state["x"]), dtype=torch.bool, device=state["x"].device)

    def best(self, state: RowState) -> Tensor:
        return state["x"]


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> RandomSign:
    """Parameters: draws=8. InputError for a bad value, or a threat other than Linf and renofeation."""
    box = require(spec, threat, LinfBall, RenofeationBox)
    draws = int(parameters(spec)["draws"])
    if draws < 1:
        raise InputError(f"attack {spec.id}: draws={draws} must be at least 1")
    return RandomSign(box, draws)
