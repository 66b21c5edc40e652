"""Attacks that drive single neurons of the public network: the attacker never sees the victim.

`pretrained-neuron`: PGD on the public feature extractor g, from a random start U(-eps, eps), drives one penultimate
neuron i to m and the others to 0, by maximising -[(g_i - m)^2 + 0.1 mean_{j != i} g_j^2]. Every network that was
fine-tuned from the public one is then judged on the point. Without its control, `random-sign`, its result has no
meaning.

`pretrained-coverage`: every step ascends the sum of k random uncovered units. Units are the channels of all stages by
their means over positions; one is covered for an image once its value, scaled to [0,1] within its layer, exceeded a
threshold at any step. Where fewer than k are uncovered, the k are drawn of all.

Paper: neuron: Renofeation's evaluator (Chin et al. 2020, arXiv:2002.02998, eval_robustness.py). coverage: ReMoS (Zhang
et al. 2022), its attack by DeepXplore's neuron coverage.
Threats: Linf, with pixels kept in [0,1] (a deviation); `renofeation`, the paper's own box in normalised space, clipped
at +-2.2 there.
Holds: the source's penultimate features; coverage: its stages.
Counts: the end point of each try.
Deviations: neuron: neurons 0..k-1, one try each, take the place of neuron 0, because one neuron alone is an unreliable
measure; the random starts are seeded. coverage: units are those of stages, not of every convolution and batch norm;
coverage is an image's own, not a batch's; in Linf the ball is one of pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transferbench.attacks import Keys, RowState, losses, parameters, require
from transferbench.attacks.source_attack import SignAscent, SourceNetwork, require_positive, step_keys
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import BoundedThreat, LinfBall, RenofeationBox, Threat

IDS = {
    "pretrained-neuron": "source only: drive k penultimate neurons of the public network, one by one (Renofeation)",
    "pretrained-coverage": "source only: drive k random uncovered units of the public network up, step by step (ReMoS)",
}
PARAMETERS = {
    "pretrained-neuron": {"neuron": 0, "neurons": 8, "n_iter": 40, "step": 0.1, "m": 1000.0},
    "pretrained-coverage": {"k": 20, "threshold": 0.5, "n_iter": 40, "step": 0.1},
}
VERSION = 1


class PretrainedNeuron(SignAscent):
    """Try k drives neuron `first` + k of the penultimate features."""

    id = "pretrained-neuron"

    def __init__(self, threat: BoundedThreat, neurons: int, n_iter: int, step: float, m: float, first: int = 0) -> None:
        super().__init__(threat, n_iter, step, neurons)
        self.m, self.first = m, first

    @property
    def reads(self) -> tuple[str, ...]:
        return ("penultimate",)

    def begin(self, x: Tensor, source: SourceNetwork, keys: Keys) -> RowState:
        return {"neuron": keys.tries + self.first}

    def loss(self, point: Tensor, source: SourceNetwork, state: RowState, copy: int) -> Tensor:
        output = source(point, "penultimate")["penultimate"]
        if output.shape[1] < self.first + self.tries:
            raise InputError(
                f"attack {self.id}: the public network has {output.shape[1]} penultimate neurons, fewer than the "
                f"{self.first + self.tries} requested"
            )
        driven = losses.of_class(output, state["neuron"])
        others = (output.square().sum(1) - driven.square()) / (output.shape[1] - 1)
        return -((driven - self.m).square() + 0.1 * others)


class PretrainedCoverage(SignAscent):
    """`state["covered"]` bool [B, units]. `loss` adds to it what the point covers, which twice is as once."""

    id = "pretrained-coverage"
    start_forwards = 1
    k: int
    threshold: float

    @property
    def reads(self) -> tuple[str, ...]:
        return ("stages",)

    def begin(self, x: Tensor, source: SourceNetwork, keys: Keys) -> RowState:
        return {"covered": torch.zeros_like(torch.cat(_units(source, x), 1), dtype=torch.bool)}

    def loss(self, point: Tensor, source: SourceNetwork, state: RowState, copy: int) -> Tensor:
        layers = _units(source, point)
        scaled = torch.cat([_scaled(layer) for layer in layers], 1)
        state["covered"] = covered = state["covered"] | (scaled > self.threshold)
        # Numbers in [0, 1), and in [2, 3) for units that are to be drawn after all others.
        last = covered & ((~covered).sum(1, keepdim=True) >= self.k)
        order = (keyed_random.uniform(step_keys(state), (covered.shape[1],)) + 2 * last).argsort(dim=1, stable=True)
        return torch.cat(layers, 1).gather(1, order[:, : self.k]).sum(1)


def _units(source: SourceNetwork, x: Tensor) -> list[Tensor]:
    """[B, C] of every stage: its channels' means over positions."""
    outputs = source(x, *source.layers("stages")).values()
    return [output.reshape(*output.shape[:2], -1).mean(2) for output in outputs]


def _scaled(layer: Tensor) -> Tensor:
    """[B, C]: from 0, the row's smallest value, to 1, its largest."""
    low, high = layer.detach().aminmax(dim=1, keepdim=True)
    return (layer.detach() - low) / (high - low).clamp(min=torch.finfo(layer.dtype).tiny)


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> SignAscent:
    """Parameters: neuron: neurons=8, one try each, from neuron=0 on; n_iter=40, step=0.1 (of eps), m=1000, the value
    that a neuron is driven to. coverage: k=20 units a step, threshold=0.5; n_iter=40, step=0.1 (of eps).

    InputError for a bad value, or a threat other than Linf and renofeation.
    """
    box = require(spec, threat, LinfBall, RenofeationBox)
    params = parameters(spec)
    if spec.id == PretrainedCoverage.id:
        require_positive(spec.id, params, "k", "n_iter", "step")
        if not 0 <= params["threshold"] < 1:
            raise InputError(f"attack {spec.id}: threshold={params['threshold']} must be in [0, 1)")
        attack = PretrainedCoverage(box, params["n_iter"], float(params["step"]), random_start=False)
        attack.k, attack.threshold = params["k"], float(params["threshold"])
        return attack
    first, neurons, n_iter, step, m = (params[name] for name in ("neuron", "neurons", "n_iter", "step", "m"))
    if neurons < 1 or n_iter < 1:
        raise InputError(f"attack {spec.id}: neurons={neurons} and n_iter={n_iter} must be at least 1")
    if first < 0 or step <= 0:
        raise InputError(f"attack {spec.id}: neuron={first} must be at least 0, and step={step} above 0")
    return PretrainedNeuron(box, neurons, n_iter, float(step), float(m), first)
