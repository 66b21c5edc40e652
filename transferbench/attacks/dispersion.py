"""Dispersion reduction: the activations of one layer of the public network lose their contrast.

Minimises the standard deviation of a layer's activations of the image, over channels and positions.

Paper: Lu et al. 2020, DR (arXiv:1911.11616).
Threats: Linf.
Holds: a middle layer of the source.
Counts: the end point.
Deviations: the steps are shares of eps, and reach the bound: the authors' code takes 10 of 0.004, 0.064 eps at its
16/255; its variant with Adam is left out; the deviation is taken per row, where theirs is over a batch of one; the
layer is that of ResNets' second stage or its like, theirs conv3-3 of VGG16 and layer2[7] of ResNet-152.
"""

from __future__ import annotations

from torch import Tensor

from transferbench.attacks import RowState, parameters, require
from transferbench.attacks.source_attack import SignAscent, SourceNetwork, require_positive
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat

IDS = {"dispersion-reduction": "source only: take the contrast out of a middle layer's activations (DR)"}
PARAMETERS = {"dispersion-reduction": {"layer": "middle", "n_iter": 10, "step": 0.25}}
VERSION = 1


class DispersionReduction(SignAscent):
    id = "dispersion-reduction"
    layer: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.layer,)

    def loss(self, point: Tensor, source: SourceNetwork, state: RowState, copy: int) -> Tensor:
        return -source(point, self.layer)[self.layer].flatten(1).std(1, correction=0)


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> DispersionReduction:
    """Parameters: layer=middle, a place or the name of a module; n_iter=10, step=0.25 (of eps).

    InputError for a bad value, or a threat other than Linf.
    """
    ball, params = require(spec, threat, LinfBall), parameters(spec)
    require_positive(spec.id, params, "n_iter", "step")
    attack = DispersionReduction(ball, params["n_iter"], float(params["step"]), random_start=False)
    attack.layer = params["layer"]
    return attack
