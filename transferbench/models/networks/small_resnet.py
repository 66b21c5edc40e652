"""Residual network for 8x8 grey images: stem and four stages of one block, 69k parameters."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.models.features import Layers
from transferbench.models.networks import Built

IDS = {"small-resnet": "residual network for 8x8 grey images: stem and four stages of one block, 69k parameters"}
NORMALISATION = "none"
_STAGES = ("stage1", "stage2", "stage3", "stage4")
_WIDTHS = (16, 24, 32, 48)
_STRIDES = (1, 2, 2, 1)


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
    """Images [B, 1, 8, 8] in [0,1] -> logits [B, num_classes]."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, _WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(_WIDTHS[0]), nn.ReLU())
        widths = (_WIDTHS[0], *_WIDTHS)
        for name, inputs, outputs, stride in zip(_STAGES, widths, _WIDTHS, _STRIDES, strict=False):
            setattr(self, name, Block(inputs, outputs, stride))
        self.head = nn.Linear(_WIDTHS[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name in _STAGES:
            x = getattr(self, name)(x)
        return self.head(x.mean((2, 3)))


def build(id: str, num_classes: int) -> Built:
    """The residual network with random weights."""
    return Built(SmallResNet(num_classes), Layers(_STAGES, "head"), (1, 8, 8))
