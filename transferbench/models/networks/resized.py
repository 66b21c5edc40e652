"""Any network behind a resizing layer: `resized:<side of the images>-<side of the network>:<network>`.

IGAM's teachers take targets of another resolution in this way. Bilinear, antialiased where the image is larger; an
attack changes the pixels before the resizing. IGAM's code resizes with TensorFlow 1's corner convention, this layer
with the half-pixel convention: the two differ by a shift of less than a pixel.
"""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.models import networks
from transferbench.models.features import Layers, behind
from transferbench.models.networks import Built

IDS = {"resized": "resized:<from>-<to>:<network>, any network behind a bilinear resizing of its input"}

_ID = re.compile(r"resized:(\d+)-(\d+):(.+)")


class Resized(nn.Module):
    """model(images resized to `side` x `side`)."""

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__()
        self.model, self.side = model, side

    def forward(self, x: Tensor) -> Tensor:
        smaller = self.side < x.shape[-1]
        size = (self.side, self.side)
        return self.model(F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=smaller))


def wrap(model: nn.Module, layers: Layers, side: int) -> tuple[Resized, Layers]:
    """The network behind the resizing layer, and its layers under their new names (`model.` in front)."""
    return Resized(model, side), behind("model", layers)


def build(id: str, num_classes: int) -> Built:
    """The inner network behind the resizing layer. InputError for an id of another form."""
    match = _ID.fullmatch(id)
    if match is None:
        raise InputError(f"network {id}: write it as resized:32-224:<network>")
    inner = networks.build(match[3], num_classes)
    model, layers = wrap(inner.model, inner.layers, int(match[2]))
    return Built(model, layers, (inner.input_shape[0], int(match[1]), int(match[1])))


def unstated(id: str) -> str:
    """What the inner network's id leaves open."""
    match = _ID.fullmatch(id)
    return "" if match is None else networks.unstated(match[3])


def check_loaded(id: str, model: nn.Module, name: str) -> None:
    """The inner network's check of its weights."""
    match = _ID.fullmatch(id)
    if match is not None and isinstance(model, Resized):
        networks.check_loaded(match[3], model.model, name)
