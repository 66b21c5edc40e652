"""Small residual networks, a stem and four stages of one block: for 8x8 grey and for 32x32 colour images."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.models.features import Layers
from transferbench.models.networks import Built

IDS = {
    "small-resnet": "residual network for 8x8 grey images: stem and four stages of one block, 69k parameters",
    "small-resnet-32": "residual network for 32x32 colour images: stem and four stages of one block, 494k parameters",
}
NORMALISATION = "none"
_STAGES = ("stage1", "stage2", "stage3", "stage4")


class _Size(NamedTuple):
    """The image's channels and side, the stem's stride, and the stages' channels and strides."""

    channels: int
    side: int
    stem: int
    widths: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]


_SIZES = {
    "small-resnet": _Size(1, 8, 1, (16, 24, 32, 48), (1, 2, 2, 1)),
    "small-resnet-32": _Size(3, 32, 2, (32, 64, 96, 128), (1, 2, 2, 1)),
}


class Block(nn.Module):
    """conv-BN-ReLU-conv-BN plus the identity, or a strided 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        inner = self.bn2(self.conv2(inner))
        return F.relu(inner + self.shortcut(x))


class SmallResNet(nn.Module):
    """Images [B, channels, side, side] in [0,1] -> logits [B, num_classes]."""

    def __init__(self, num_classes: int, size: _Size = _SIZES["small-resnet"]) -> None:
        super().__init__()
        first, last = size.widths[0], size.widths[-1]
        self.stem = nn.Sequential(
            nn.Conv2d(size.channels, first, 3, size.stem, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        widths = (first, *size.widths)
        for name, inputs, outputs, stride in zip(_STAGES, widths, size.widths, size.strides, strict=False):
            setattr(self, name, Block(inputs, outputs, stride))
        self.head = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name in _STAGES:
            x = getattr(self, name)(x)
        return self.head(x.mean((2, 3)))


def build(id: str, num_classes: int) -> Built:
    """The residual network with random weights."""
    size = _SIZES[id]
    return Built(SmallResNet(num_classes, size), Layers(_STAGES, "head"), (size.channels, size.side, size.side))
