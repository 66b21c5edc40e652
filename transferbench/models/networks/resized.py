"""A network that resizes its input: images of one side go in, the network inside takes another.

`resized:<side of the images>-<side of the network>:<network>`, as IGAM's teachers do it for targets of another
resolution. Bilinear; antialiased where the image is larger. The attack sees the image's own pixels. IGAM's code
resizes with TensorFlow 1's corner convention; ours is the half-pixel one, so the two differ by a shift of less than
a pixel.
"""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.models import networks
from transferbench.models.features import Layers
from transferbench.models.networks import Built

IDS = {"resized": "resized:<from>-<to>:<network>, any network behind a bilinear resizing of its input"}

_ID = re.compile(r"resized:(\d+)-(\d+):(.+)")


class Resized(nn.Module):
    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__()
        self.model, self.side = model, side

    def forward(self, x: Tensor) -> Tensor:
        smaller = self.side < x.shape[-1]
        size = (self.side, self.side)
        return self.model(F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=smaller))


def wrap(model: nn.Module, layers: Layers, side: int) -> tuple[Resized, Layers]:
    """The network behind the resizing, and its layers under their new names."""
    stages = tuple(f"model.{stage}" for stage in layers.stages)
    return Resized(model, side), Layers(stages, f"model.{layers.head}" if layers.head else "")


def build(id: str, num_classes: int) -> Built:
    found = _ID.fullmatch(id)
    if found is None:
        raise InputError(f"network {id}: write it as resized:32-224:<network>")
    inner = networks.build(found[3], num_classes)
    model, layers = wrap(inner.model, inner.layers, int(found[2]))
    return Built(model, layers, (inner.input_shape[0], int(found[1]), int(found[1])))
