"""BFA and ILPD: attacks on the public network's own clean prediction through a middle layer.

`source-bfa` weights the layer's activations by the gradient of the clean class's logit, summed over points that the
cross-entropy has pushed away from the image, and lowers the weighted sum. `source-ilpd` ascends the cross-entropy of a
pass in which the layer's output is gamma times its own and 1 - gamma times that of the clean image with noise. Both
follow the running mean of normalised gradients.

Paper: BFA: Wang et al. 2024 (Neurocomputing 595). ILPD: Li et al. 2023 (arXiv:2304.13410). Settings as in
TransferAttack's code.
Threats: Linf.
Holds: the source's logits and a middle layer.
Counts: the end point.
Deviations: the label is the source's own clean class. bfa: the length 28 of its push at 224 pixels and eps 16/255 is
1.15 * eps * sqrt(d) for d entries. ilpd: its steps of 1/255 at eps 16/255 are shares of eps. The layer is that of
ResNets' second stage or its like; noise is drawn per row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transferbench.attacks import Keys, RowState, losses, parameters, require
from transferbench.attacks.source_attack import SourceNetwork, mean_size, require_positive, step_keys
from transferbench.attacks.source_momentum import with_momentum
from transferbench.attacks.source_pgd import OwnClass
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat
from transferbench.threats.projections import unit_l2

IDS = {
    "source-bfa": "source only: lower the activations of a middle layer that the source's own class rests on (BFA)",
    "source-ilpd": "source only: MI-FGSM through a middle layer whose change is damped (ILPD)",
}
PARAMETERS = {
    "source-bfa": {"layer": "middle", "rounds": 30, "eta": 1.15, "n_iter": 10, "step": 0.1, "decay": 1.0},
    "source-ilpd": {"layer": "middle", "gamma": 0.1, "sigma": 0.05, "n_iter": 100, "step": 0.0625, "decay": 1.0},
}
VERSION = 1


class SourceBFA(OwnClass):
    id = "source-bfa"
    layer: str
    rounds: int
    eta: float

    @property
    def reads(self) -> tuple[str, ...]:
        return ("logits", self.layer)

    def begin(self, x: Tensor, source: SourceNetwork, keys: Keys) -> RowState:
        """The layer's weights. A pass pushes the next round's point and, but for the first, adds to the weights."""
        length = self.eta * self.threat.radius * x[0].numel() ** 0.5
        point, weights, target = x, torch.zeros(()), None
        for number in range(self.rounds + 1):
            kept: list[Tensor] = []

            def keep(output: Tensor, kept: list[Tensor] = kept) -> Tensor:
                # A recorded output may be a view, which the logits do not depend on.
                kept.append(output)
                return output

            with torch.enable_grad():
                point = point.detach().requires_grad_(True)
                logits = source(point, "logits", changes={self.layer: keep})["logits"]
                target = logits.argmax(1) if target is None else target
                if number > 0:
                    own = losses.of_class(logits, target).sum()
                    weights = weights - torch.autograd.grad(own, kept[0], retain_graph=number < self.rounds)[0]
                if number < self.rounds:
                    push = torch.autograd.grad(losses.cross_entropy(logits, target).sum(), point)[0]
                    point = x + length * _unit(push)
        return {"weights": _unit(weights)}

    def loss(self, point: Tensor, source: SourceNetwork, state: RowState, copy: int) -> Tensor:
        return (state["weights"] * source(point, self.layer)[self.layer]).flatten(1).sum(1)


class SourceILPD(OwnClass):
    id = "source-ilpd"
    layer: str
    gamma: float
    sigma: float

    @property
    def reads(self) -> tuple[str, ...]:
        return ("logits", self.layer)

    def loss(self, point: Tensor, source: SourceNetwork, state: RowState, copy: int) -> Tensor:
        noise = keyed_random.normal(step_keys(state, copy), tuple(point.shape[1:])).to(point.dtype)
        with torch.no_grad():
            clean = source(state["clean"] + self.sigma * noise, self.layer)[self.layer]
        damped = {self.layer: lambda output: self.gamma * output + (1 - self.gamma) * clean}
        return losses.cross_entropy(source(point, "logits", changes=damped)["logits"], state["target"])


def _unit(rows: Tensor) -> Tensor:
    """The rows divided by their L2 norm, however small they are; a row of zeros stays one."""
    return unit_l2(rows / mean_size(rows))


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> OwnClass:
    """Parameters: layer=middle, a place or the name of a module; step (of eps) and decay=1 of the running mean. bfa:
    rounds=30 of weights, eta=1.15, the length of a push over eps * sqrt(d); n_iter=10, step=0.1. ilpd: gamma=0.1,
    sigma=0.05, the noise in [0,1] pixels; n_iter=100, step=0.0625.

    InputError for a bad value, or a threat other than Linf.
    """
    ball, params = require(spec, threat, LinfBall), parameters(spec)
    if spec.id == SourceBFA.id:
        require_positive(spec.id, params, "rounds", "eta")
        bfa = with_momentum(SourceBFA, ball, params)
        bfa.layer, bfa.rounds, bfa.eta = params["layer"], params["rounds"], float(params["eta"])
        bfa.start_forwards, bfa.start_backwards = bfa.rounds + 1, 2 * bfa.rounds
        return bfa
    if not 0 < params["gamma"] <= 1 or params["sigma"] < 0:
        raise InputError(
            f"attack {spec.id}: gamma={params['gamma']} must be in (0, 1], and sigma={params['sigma']} at least 0"
        )
    ilpd = with_momentum(SourceILPD, ball, params)
    ilpd.layer, ilpd.gamma, ilpd.sigma = params["layer"], float(params["gamma"]), float(params["sigma"])
    # Every step also passes the clean image with noise.
    ilpd.start_forwards = 1 + ilpd.steps
    return ilpd
