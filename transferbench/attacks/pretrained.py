"""The pre-trained-model attack: the attacker holds the public network and never sees the victim.

PGD on the public feature extractor g, from a random start U(-eps, eps), drives one penultimate neuron i to m and the
others to 0, by maximising -[(g_i - m)^2 + 0.1 mean_{j != i} g_j^2]. Every network that was fine-tuned from the public
one is then judged on the point. Without its control, `random-sign`, its result has no meaning.

Paper: Renofeation's evaluator (Chin et al. 2020, arXiv:2002.02998, eval_robustness.py).
Threats: Linf, with pixels kept in [0,1] (a deviation); `renofeation`, the paper's own box in normalised space, clipped
at +-2.2 there.
Holds: the source's penultimate features.
Counts: the end point of each try.
Deviations: neurons 0..k-1, one try each, take the place of neuron 0, because one neuron alone is an unreliable measure;
the random starts are seeded.
"""

from __future__ import annotations

from torch import Tensor

from transferbench.attacks import Keys, RowState, losses, parameters, require
from transferbench.attacks.source_attack import SignAscent, Source
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import BoundedThreat, LinfBall, RenofeationBox, Threat

IDS = {"pretrained-neuron": "source only: drive k penultimate neurons of the public network, one by one (Renofeation)"}
PARAMETERS = {"pretrained-neuron": {"neuron": 0, "neurons": 8, "n_iter": 40, "step": 0.1, "m": 1000.0}}
VERSION = 1


class PretrainedNeuron(SignAscent):
    """Try k drives neuron `first` + k of the penultimate features."""

    id = "pretrained-neuron"

    def __init__(self, threat: BoundedThreat, neurons: int, n_iter: int, step: float, m: float, first: int = 0) -> None:
        super().__init__(threat, n_iter, step, neurons)
        self.m, self.first = m, first

    def begin(self, x: Tensor, source: Source, keys: Keys) -> RowState:
        return {"neuron": keys.tries + self.first}

    def loss(self, point: Tensor, source: Source, state: RowState, copy: int) -> Tensor:
        output = source(point, "penultimate")["penultimate"]
        if output.shape[1] < self.first + self.tries:
            raise InputError(
                f"attack {self.id}: the public network has {output.shape[1]} penultimate neurons, fewer than the "
                f"{self.first + self.tries} requested"
            )
        driven = losses.of_class(output, state["neuron"])
        others = (output.square().sum(1) - driven.square()) / (output.shape[1] - 1)
        return -((driven - self.m).square() + 0.1 * others)


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> PretrainedNeuron:
    """Parameters: neurons=8, one try each, from neuron=0 on; n_iter=40, step=0.1 (of eps), m=1000, the value that a
    neuron is driven to.

    InputError for a bad value, or a threat other than Linf and renofeation.
    """
    box = require(spec, threat, LinfBall, RenofeationBox)
    params = parameters(spec)
    first, neurons, n_iter, step, m = (params[name] for name in ("neuron", "neurons", "n_iter", "step", "m"))
    if neurons < 1 or n_iter < 1:
        raise InputError(f"attack {spec.id}: neurons={neurons} and n_iter={n_iter} must be at least 1")
    if first < 0 or step <= 0:
        raise InputError(f"attack {spec.id}: neuron={first} must be at least 0, and step={step} above 0")
    return PretrainedNeuron(box, neurons, n_iter, float(step), float(m), first)
