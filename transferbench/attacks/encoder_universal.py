"""Universal deltas against an encoder: its features of x + delta are driven away from those of x.

x-transfer minimises the mean cosine of g(x + delta) and g(x); adv-encoder maximises InfoNCE between them, the other
images of the batch being the negatives, less the delta's low frequencies.

Paper: X-Transfer (Huang et al. 2025, arXiv:2505.05528) with one source, its own baseline; AdvEncoder (Zhou et al. 2023,
arXiv:2307.12280).
Threats: Linf.
Holds: the source's penultimate features; unlabelled images.
Counts: the clipped image with the delta.
Deviations: one epoch of ImageNet becomes steps on images drawn with replacement, and batches are smaller. AdvEncoder's
generator is left out: its two image terms sum to mean((delta - H delta)^2), H its high-pass filter, because H is
linear; x + delta is clamped to [0,1], where its code does not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from transferbench.attacks import RowState, parameters, require
from transferbench.attacks.source_attack import SourceNetwork, require_positive
from transferbench.attacks.universal_attack import UniversalAscent, applied, checked
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat

IDS = {
    "x-transfer": "universal, source only: turn the features of every image away (X-Transfer with one source)",
    "adv-encoder": "universal, source only: features unlike their own image's, by InfoNCE (AdvEncoder)",
}
PARAMETERS = {
    "x-transfer": {"steps": 300, "step": 0.041667, "batch": 32, "images": "target", "deltas": 1},
    "adv-encoder": {
        "steps": 300,
        "step": 0.02,
        "batch": 64,
        "images": "target",
        "deltas": 1,
        "alpha": 5.0,
        "temperature": 0.1,
    },
}
VERSION = 1

_RADIUS = 1 / 8
"""Of AdvEncoder's filter, as a share of the image's side: 8 of 64."""


class EncoderUniversal(UniversalAscent):
    forwards = 2

    def features(self, delta: Tensor, images: Tensor, source: SourceNetwork) -> tuple[Tensor, Tensor]:
        """Unit features [B, width] of the images and of the images with the delta."""
        with torch.no_grad():
            clean = source(images, "penultimate")["penultimate"]
        moved = source(applied(images, delta), "penultimate")["penultimate"]
        return F.normalize(clean), F.normalize(moved)


class XTransfer(EncoderUniversal):
    id = "x-transfer"

    def loss(self, delta: Tensor, images: Tensor, source: SourceNetwork, state: RowState) -> Tensor:
        clean, moved = self.features(delta, images, source)
        return -(clean * moved).sum(1).mean()


class AdvEncoder(EncoderUniversal):
    id = "adv-encoder"
    alpha: float
    temperature: float

    def loss(self, delta: Tensor, images: Tensor, source: SourceNetwork, state: RowState) -> Tensor:
        clean, moved = self.features(delta, images, source)
        similar = clean @ moved.T / self.temperature
        contrast = F.cross_entropy(similar, torch.arange(len(images), device=images.device))
        return self.alpha * contrast - low_frequencies(delta).square().mean()


def low_frequencies(delta: Tensor) -> Tensor:
    """[1, C, H, W]: the delta without the frequencies farther from zero than an eighth of the image's side."""
    height, width = delta.shape[-2:]
    vertical = torch.fft.fftfreq(height, 1 / height, device=delta.device)
    horizontal = torch.fft.fftfreq(width, 1 / width, device=delta.device)
    inside = (vertical[:, None].square() + horizontal[None].square()).sqrt() <= _RADIUS * min(height, width)
    return torch.fft.ifft2(torch.fft.fft2(delta) * inside).real


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> EncoderUniversal:
    """Parameters: steps=300 of step (of eps; x-transfer 1/24 as 0.041667, adv-encoder 0.02) on batch (32, 64) images,
    images=target|source|gaussian; deltas=1, the number of deltas; of adv-encoder alpha=5, the weight of InfoNCE, and
    temperature=0.1.

    InputError for a bad value, or a threat other than Linf.
    """
    ball, params = require(spec, threat, LinfBall), parameters(spec)
    budget = checked(spec.id, params)
    if spec.id == "x-transfer":
        return XTransfer(ball, budget)
    require_positive(spec.id, params, "alpha", "temperature")
    if budget.batch < 2:
        raise InputError(f"attack {spec.id}: batch={budget.batch} leaves no other image to compare with")
    attack = AdvEncoder(ball, budget)
    attack.alpha, attack.temperature = float(params["alpha"]), float(params["temperature"])
    return attack
