"""Fast feature fool: a universal delta without data, that drives up the activations of every convolution.

Maximises the sum over the convolutions of log(sum(g^2) / 2), of their outputs before normalisation and ReLU, with Adam.
The network sees the delta alone, or Gaussian images with it.

Paper: Mopuri et al. 2017 (arXiv:1707.05572), as in the code of PAP (Ban and Dong 2022).
Threats: Linf.
Holds: all convolutions of the source; no data.
Counts: the clipped image with the delta.
Deviations: 1,000 steps take the place of 10,000; Gaussian images are L4A's and not ImageNet's mean and deviation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transferbench.attacks import RowState, parameters, require
from transferbench.attacks.source_attack import SourceNetwork
from transferbench.attacks.universal_attack import UniversalAscent, applied, checked
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat

IDS = {"fff": "universal, source only, without data: raise the activations of every convolution (FFF)"}
PARAMETERS = {"fff": {"steps": 1000, "step": 0.1, "batch": 1, "images": "none", "deltas": 1}}
VERSION = 1

_BETA = 0.9, 0.999
"""Adam's, with its usual 1e-8."""
_SATURATED, _STILL = 0.5, 1e-5
"""The delta is halved where more than this share of it is at the bound and the share moves by less."""


class FFF(UniversalAscent):
    id = "fff"

    @property
    def reads(self) -> tuple[str, ...]:
        return ("convolutions",)

    def start(self, shape: tuple[int, ...], key: int) -> RowState:
        state = super().start(shape, key)
        zero = torch.zeros_like(state["delta"])
        return {**state, "first": zero, "second": zero.clone(), "at bound": torch.zeros(1)}

    def loss(self, delta: Tensor, images: Tensor, source: SourceNetwork, state: RowState) -> Tensor:
        names = source.layers("convolutions")
        seen = delta if self.images == "none" else applied(images, delta)
        outputs = source(seen, *names)
        tiny = torch.finfo(delta.dtype).tiny
        return torch.stack([(outputs[name].square().sum() / 2).clamp(min=tiny).log() for name in names]).sum()

    def step(self, state: RowState, gradient: Tensor) -> Tensor:
        state["step"] += 1
        state["first"] = _BETA[0] * state["first"] + (1 - _BETA[0]) * gradient
        state["second"] = _BETA[1] * state["second"] + (1 - _BETA[1]) * gradient.square()
        count = int(state["step"])
        first, second = (state[name] / (1 - beta**count) for name, beta in zip(("first", "second"), _BETA, strict=True))
        moved = (state["delta"] + self.rate * first / (second.sqrt() + 1e-8)).clamp(-self.eps, self.eps)
        share = (moved.abs() >= self.eps * (1 - 1e-6)).float().mean()
        halves = share > _SATURATED and abs(share - state["at bound"]) < _STILL
        state["at bound"] = share.view(1)
        return moved / 2 if halves else moved

    @property
    def rate(self) -> float:
        """Adam's learning rate in pixels."""
        return self.step_size / self.eps


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> FFF:
    """Parameters: steps=1000 of Adam with the learning rate step=0.1; images=none (the delta alone) or gaussian, of
    which batch=1; deltas=1, the number of deltas.

    InputError for a bad value, or a threat other than Linf.
    """
    ball, params = require(spec, threat, LinfBall), parameters(spec)
    return FFF(ball, checked(spec.id, params, ("none", "gaussian")))
