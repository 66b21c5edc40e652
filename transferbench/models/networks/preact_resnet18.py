"""Pre-activation ResNet-18 of E-AT, with softplus inside the blocks and no input normalisation.

Croce and Hein 2022 (arXiv:2105.12508), robust-finetuning's `fast_models.py`: 3x3 stem of 64, four stages of two
blocks, widths 64/128/256/512, strides 1/2/2/2, block activation softplus(beta=1) (`softplus1` in its file names),
1x1 shortcuts that take the activated input, final batch norm and a *ReLU*, global pool, linear. The names of the
parameters are those of its checkpoints (`pretr_Linf.pth`, ...).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.models.features import Layers
from transferbench.models.networks import Built

IDS = {"preact-resnet18": "PreActResNet-18 of E-AT (robust-finetuning): softplus blocks, 32x32 RGB"}

_STAGES = ("layer1", "layer2", "layer3", "layer4")


class PreActBlock(nn.Module):
    """BN, softplus, conv, BN, softplus, conv, plus the shortcut: the identity, or a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        active = F.softplus(self.bn1(x))
        shortcut = self.shortcut(active) if hasattr(self, "shortcut") else x
        inner = self.conv1(active)
        return self.conv2(F.softplus(self.bn2(inner))) + shortcut


class PreActResNet18(nn.Module):
    """Images [B, 3, 32, 32] in [0,1] -> logits [B, num_classes]."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        inputs = 64
        for name, width, stride in zip(_STAGES, (64, 128, 256, 512), (1, 2, 2, 2), strict=True):
            setattr(self, name, nn.Sequential(PreActBlock(inputs, width, stride), PreActBlock(width, width, 1)))
            inputs = width
        self.bn = nn.BatchNorm2d(512)
        self.linear = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for name in _STAGES:
            x = getattr(self, name)(x)
        return self.linear(F.relu(self.bn(x)).mean((2, 3)))


def build(id: str, num_classes: int) -> Built:
    """PreActResNet-18 with random weights."""
    return Built(PreActResNet18(num_classes), Layers(_STAGES, "linear"), (3, 32, 32))
