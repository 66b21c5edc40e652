"""Architectures without weights. A file of this folder lists them in a literal `IDS`; a family is `id:name`.

`build(id: str, num_classes: int) -> Built` makes one with fresh weights. Pixels in [0,1] go in: whatever
normalisation an architecture's weights were made for is part of it.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from transferbench.base import registry
from transferbench.models.features import Layers


class Built(NamedTuple):
    """A network, where its features are, and the shape [C, H, W] of the images its weights are made for."""

    model: nn.Module
    layers: Layers
    input_shape: tuple[int, ...]


@cache
def input_shape(id: str) -> tuple[int, ...]:
    """[C, H, W] of the images that a network takes. InputError for an unknown id."""
    return build(id, 2).input_shape


def build(id: str, num_classes: int) -> Built:
    """A freshly initialised network by its id (`small-resnet`, `torchvision:resnet50`).

    InputError for an unknown id. The global random state is as before afterwards.
    """
    module = registry.find("networks", id.partition(":")[0]).load()
    with torch.random.fork_rng(devices=[]):
        built: Built = module.build(id, num_classes)
    return built
