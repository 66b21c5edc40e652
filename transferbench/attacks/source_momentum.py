"""MI-FGSM and DI^2-FGSM on the public network, at its own clean prediction.

`source-mi` follows the running mean of normalised gradients. `source-di` takes each gradient, with probability 1/2, at
a copy of the point that was enlarged, padded with zeros to a random place and resized back.

Paper: Dong et al. 2018, MI-FGSM (arXiv:1710.06081); Xie et al. 2019, DI^2-FGSM (arXiv:1803.06978), with the settings of
TransferAttack's code: 10 steps of eps/10, decay 1, no random start.
Threats: Linf.
Holds: the source's logits.
Counts: the end point.
Deviations: the label is the source's own clean class. Sizes in pixels are shares of the image's side: 224 to 245 in 246
are side to ratio * side - 1 in ratio * side, at least one pixel more; every place in the frame is possible, the code's
leaves out the last; draws are per row, not per batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from transferbench.attacks import parameters, require
from transferbench.attacks.source_attack import require_positive
from transferbench.attacks.source_pgd import OwnClass
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat

IDS = {
    "source-mi": "source only: MI-FGSM on the public network, against its own clean prediction",
    "source-di": "source only: MI-FGSM with input diversity (DI2-FGSM), against its own clean prediction",
}
PARAMETERS = {
    "source-mi": {"n_iter": 10, "step": 0.1, "decay": 1.0},
    "source-di": {"n_iter": 10, "step": 0.1, "decay": 1.0, "probability": 0.5, "ratio": 1.1},
}
VERSION = 1


C = TypeVar("C", bound=OwnClass)


class SourceMI(OwnClass):
    id = "source-mi"


class SourceDI(OwnClass):
    id = "source-di"
    probability: float
    ratio: float

    def transformed(self, point: Tensor, keys: Tensor) -> Tensor:
        """With `probability` enlarged, padded and resized back."""
        applied, size, *places = keyed_random.uniform(keys, (4,)).unbind(1)
        sides = zip(point.shape[2:], places, strict=True)
        rows, columns = (self._resampling(side, size, place).to(point.dtype) for side, place in sides)
        copy = rows[:, None] @ point @ columns[:, None].transpose(2, 3)
        return torch.where((applied < self.probability)[:, None, None, None], copy, point)

    def _resampling(self, side: int, size: Tensor, place: Tensor) -> Tensor:
        """[B, side, side]: an axis enlarged, padded and resized back, as a matrix; `size` and `place` [B] in [0, 1)."""
        frame = max(int(self.ratio * side), side + 1)
        length = side + (size * (frame - side)).long()
        first = (place * (frame - length + 1)).long()
        position = torch.arange(frame, device=size.device) - first[:, None]
        inside = (position >= 0) & (position < length[:, None])
        enlarged = inside[:, :, None] * interpolation((position + 0.5) * (side / length)[:, None] - 0.5, side)
        back = (torch.arange(side, device=size.device) + 0.5) * (frame / side) - 0.5
        return interpolation(back, frame) @ enlarged


def interpolation(positions: Tensor, length: int) -> Tensor:
    """[..., length]: the weights with which each of `positions` [...] reads a line of that length, linearly between its
    entries; beyond the ends as at the ends."""
    entries = torch.arange(length, device=positions.device)
    return (1 - (positions.clamp(0, length - 1)[..., None] - entries).abs()).clamp(min=0)


def with_momentum(kind: type[C], ball: LinfBall, params: Mapping[str, Any]) -> C:
    """An attack that follows the running mean from the clean image. InputError for a bad n_iter, step or decay."""
    require_positive(kind.id, params, "n_iter", "step", "decay")
    return kind(ball, params["n_iter"], float(params["step"]), 1, float(params["decay"]), random_start=False)


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> OwnClass:
    """Parameters: n_iter=10, step=0.1 (of eps), decay=1, of the running mean; di: probability=0.5 of a copy, ratio=1.1,
    the side of its frame over the image's.

    InputError for a bad value, or a threat other than Linf.
    """
    ball, params = require(spec, threat, LinfBall), parameters(spec)
    if spec.id == SourceMI.id:
        return with_momentum(SourceMI, ball, params)
    if not 0 < params["probability"] <= 1 or not 1 < params["ratio"] <= 2:
        raise InputError(
            f"attack {spec.id}: probability={params['probability']} must be in (0, 1], and ratio={params['ratio']} in "
            "(1, 2]"
        )
    attack = with_momentum(SourceDI, ball, params)
    attack.probability, attack.ratio = float(params["probability"]), float(params["ratio"])
    return attack
