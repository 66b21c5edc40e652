"""The pre-trained-model attack: the attacker holds the public network and never sees the victim.

Renofeation's evaluator (Chin et al. 2020, arXiv:2002.02998, eval_robustness.py): PGD on the public feature
extractor g drives one penultimate neuron i to m and the others to 0 by maximising
-[(g_i - m)^2 + 0.1 mean_{j != i} g_j^2]; m = 1000, 40 iterations, random start U(-eps, eps), step a tenth of
eps. The example is then shown to every network that was fine-tuned from the public one.

Two threats: in Linf pixels are in [0,1] and clipped to [0,1] (a deviation, `clip: valid`); `renofeation-seed` is the
seed's own, in normalised space and clipped at +-2.2 there (`clip: seed`). Deviation: k neurons (0..k-1, one try each)
take the place of neuron 0, because one neuron alone is an unreliable measure. Meaningless without its control,
`random-sign`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from transferbench.attacks import Keys, State, losses, parameters
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import SEED_BALL, AttackSpec, ThreatModel
from transferbench.threats import geometry

IDS = {"pretrained-neuron": "source only: drive k penultimate neurons of the public network, one by one (Renofeation)"}
VERSION = 1


class PretrainedNeuron:
    """Try k drives neuron k. `output` is the public network's penultimate feature [B, width]."""

    id = "pretrained-neuron"
    needs_grad = True
    counts: Literal["last"] = "last"
    sees: Literal["source-features"] = "source-features"

    def __init__(self, eps: float, neurons: int, n_iter: int, step: float, m: float, seed_ball: bool = False) -> None:
        self.eps, self.step_size, self.m, self.seed_ball = eps, step * eps, m, seed_ball
        self.tries, self.passes = neurons, n_iter + 1

    def start(self, x: Tensor, y: Tensor, clean_logits: Tensor, keys: Keys) -> State:
        noise = 2 * keyed_random.uniform(keys.noise, tuple(x.shape[1:])) - 1
        return {"x": self._inside(x, x + self.eps * self._unit(x) * noise), "clean": x, "neuron": keys.tries.clone()}

    def _unit(self, x: Tensor) -> Tensor | float:
        """What the radius is counted in, in pixels."""
        return geometry.seed_scale(x) if self.seed_ball else 1.0

    def _inside(self, x: Tensor, moved: Tensor) -> Tensor:
        if self.seed_ball:
            return torch.clamp(moved, *geometry.seed_bounds(x, self.eps))
        return geometry.project("Linf", x, moved, self.eps)

    def loss(self, output: Tensor, y: Tensor, state: State) -> Tensor:
        if output.shape[1] < self.tries:
            raise InputError(
                f"attack {self.id}: the public network has {output.shape[1]} penultimate neurons, fewer than the "
                f"{self.tries} asked for"
            )
        driven = losses.of_class(output, state["neuron"])
        others = (output.square().sum(1) - driven.square()) / (output.shape[1] - 1)
        return -((driven - self.m).square() + 0.1 * others)

    def step(self, state: State, output: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        # The sign of the gradient is the same in either space.
        moved = state["x"] + self.step_size * self._unit(gradient) * gradient.sign()
        return self._inside(state["clean"], moved)

    def candidate(self, state: State) -> Tensor:
        return torch.ones_like(state["neuron"], dtype=torch.bool)

    def best(self, state: State) -> Tensor:
        return state["x"]


def build(spec: AttackSpec, threat: ThreatModel, num_classes: int) -> PretrainedNeuron:
    """neurons=8, n_iter=40, step=0.1 (of eps), m=1000. InputError for a threat but Linf and renofeation-seed."""
    if threat.norm not in ("Linf", SEED_BALL):
        raise InputError(f"attack {spec.id} is defined in Linf and {SEED_BALL} only, not in {threat.norm}")
    given = parameters(spec, neurons=8, n_iter=40, step=0.1, m=1000.0)
    neurons, n_iter = int(given["neurons"]), int(given["n_iter"])
    if neurons < 1 or n_iter < 1:
        raise InputError(f"attack {spec.id}: neurons={neurons} and n_iter={n_iter} must be at least 1")
    return PretrainedNeuron(
        float(threat.eps), neurons, n_iter, float(given["step"]), float(given["m"]), threat.norm == SEED_BALL
    )
