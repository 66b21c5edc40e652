"""Self-supervised perturbation, universal: a delta that moves the squared activations of a middle layer.

Maximises MSE(g(x)^2, g(x + delta)^2) at one layer.

Paper: Naseer et al. 2020 (arXiv:2006.04924), per image; universal in the code of PAP (Ban and Dong 2022).
Threats: Linf.
Holds: a middle layer of the source; unlabelled images.
Counts: the clipped image with the delta.
Deviations: 1,000 steps of eps/50 take the place of 10,000 or more of eps/250; images are drawn with replacement; x +
delta is clamped to [0,1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from transferbench.attacks import RowState, parameters, require
from transferbench.attacks.source_attack import SourceNetwork
from transferbench.attacks.universal_attack import UniversalAscent, applied, checked
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat

IDS = {"ssp": "universal, source only: move the squared activations of a middle layer (SSP)"}
PARAMETERS = {
    "ssp": {"layer": "middle", "steps": 1000, "step": 0.02, "batch": 16, "images": "target", "deltas": 1},
}
VERSION = 1


class SSP(UniversalAscent):
    id = "ssp"
    forwards = 2
    layer: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.layer,)

    def loss(self, delta: Tensor, images: Tensor, source: SourceNetwork, state: RowState) -> Tensor:
        with torch.no_grad():
            clean = source(images, self.layer)[self.layer].square()
        return (source(applied(images, delta), self.layer)[self.layer].square() - clean).square().mean()


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> SSP:
    """Parameters: layer=middle, a place or the name of a module; steps=1000 of step=0.02 (of eps) on batch=16 images,
    images=target|source|gaussian; deltas=1, the number of deltas.

    InputError for a bad value, or a threat other than Linf.
    """
    ball, params = require(spec, threat, LinfBall), parameters(spec)
    attack = SSP(ball, checked(spec.id, params))
    attack.layer = params["layer"]
    return attack
