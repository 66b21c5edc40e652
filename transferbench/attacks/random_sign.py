"""The noise control of source-only attacks: random signs at the full radius, without any network.

A source-only attack that flips examples in any of k tries means something only next to as many random draws at the same
radius, counted in the same way (any of k).

Threats: Linf, `renofeation`.
Holds: nothing.
Counts: every draw.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from transferbench.attacks import Keys, RowState, parameters, require
from transferbench.attacks.source_attack import SourceNetwork
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
    sees: Literal["source"] = "source"
    scope: Literal["image"] = "image"
    steps = 0
    copies = 1
    start_forwards = 0
    start_backwards = 0
    reads: tuple[str, ...] = ()

    def __init__(self, threat: BoundedThreat, draws: int) -> None:
        self.threat, self.tries = threat, draws

    def start(self, x: Tensor, source: SourceNetwork, keys: Keys) -> RowState:
        return {"x": self.threat.displace(x, keyed_random.signs(keys.noise, tuple(x.shape[1:])))}

    def loss(self, point: Tensor, source: SourceNetwork, state: RowState, copy: int) -> Tensor:
        return point.new_zeros(len(point))

    def step(self, state: RowState, gradient: Tensor) -> Tensor:
        return state["x"]


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> RandomSign:
    """Parameters: draws=8. InputError for a bad value, or a threat other than Linf and renofeation."""
    box = require(spec, threat, LinfBall, RenofeationBox)
    draws = int(parameters(spec)["draws"])
    if draws < 1:
        raise InputError(f"attack {spec.id}: draws={draws} must be at least 1")
    return RandomSign(box, draws)
