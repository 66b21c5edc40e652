"""Pre-trained adversarial perturbations (PAP): a universal delta that drives up low-level activations of the public
network.

base maximises the mean square of one layer's activations, fuse adds lam times that of a second layer, and ugs maximises
the first layer's on Gaussian images plus lam times that on real ones.

Paper: Ban and Dong 2022, L4A (arXiv:2210.03372).
Threats: Linf.
Holds: two early layers of the source; unlabelled images.
Counts: the clipped image with the delta.
Deviations: x + delta is clamped to [0,1] in crafting and evaluation, where the paper's code clamps neither; 1,000 steps
of eps/50 take the place of 10,000 or more of eps/250; images are drawn with replacement; ugs takes the mean over all
real images, where the code drops the last. The first layer of ResNets is the stem after its pooling, of networks whose
stages begin with the image (MobileNetV2) or with tokens (ViT) what leaves the first stage.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transferbench.attacks import RowState, parameters, require
from transferbench.attacks.source_attack import SourceNetwork
from transferbench.attacks.universal_attack import UniversalAscent, applied, checked, gaussian_images
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat

IDS = {"l4a": "universal, source only: raise the first layers' activations (PAP's L4A: base, fuse, ugs)"}
PARAMETERS = {
    "l4a": {
        "mode": "base",
        "layer": "stem",
        "second": "low",
        "lam": -1.0,
        "steps": 1000,
        "step": 0.02,
        "batch": 16,
        "images": "target",
        "deltas": 1,
    }
}
VERSION = 1

_LAM = {"base": 0.0, "fuse": 1.0, "ugs": 0.01}
_GAUSSIAN = 8
"""Gaussian images beside the real ones of a batch, in ugs."""
_REDRAWN = 20
"""Steps after which the Gaussian images' means and standard deviations are drawn anew."""


class L4A(UniversalAscent):
    id = "l4a"
    mode: str
    layer: str
    second: str
    lam: float

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.layer, self.second) if self.mode == "fuse" else (self.layer,)

    def loss(self, delta: Tensor, images: Tensor, source: SourceNetwork, state: RowState) -> Tensor:
        if self.mode == "ugs":
            noise = gaussian_images(state, _GAUSSIAN, tuple(images.shape[1:]), _REDRAWN)
            # Gaussian images are not clipped, as in the paper's code.
            seen = torch.cat([noise + delta, applied(images, delta)])
            low = source(seen, self.layer)[self.layer].square()
            return low[:_GAUSSIAN].mean() + self.lam * low[_GAUSSIAN:].mean()
        names = (self.layer, self.second) if self.mode == "fuse" else (self.layer,)
        outputs = source(applied(images, delta), *names)
        value = outputs[self.layer].square().mean()
        return value + self.lam * outputs[self.second].square().mean() if self.mode == "fuse" else value


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> L4A:
    """Parameters: mode=base|fuse|ugs; layer=stem and second=low, places or names of modules; lam=-1, which stands for
    the paper's (fuse 1, ugs 0.01); steps=1000 of step=0.02 (of eps) on batch=16 images, images=target|source|gaussian;
    deltas=1, the number of deltas.

    InputError for a bad value, or a threat other than Linf.
    """
    ball, params = require(spec, threat, LinfBall), parameters(spec)
    if params["mode"] not in _LAM:
        raise InputError(f"attack {spec.id}: mode={params['mode']!r} is not one of {', '.join(_LAM)}")
    attack = L4A(ball, checked(spec.id, params))
    attack.mode, attack.layer, attack.second = params["mode"], params["layer"], params["second"]
    attack.lam = _LAM[attack.mode] if params["lam"] < 0 else float(params["lam"])
    return attack
