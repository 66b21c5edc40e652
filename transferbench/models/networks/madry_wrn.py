"""WRN-32-10 of the Madry challenge, the network of LwF, IGAM and Free AT, as their TensorFlow code builds it.

Leaky ReLU of .1, three stages of five units, widths 160/320/640, strides 1/2/2; where the width changes the
shortcut is an average pool and zeros for the new channels, half before and half after (no 1x1 convolution); the
first unit activates before it splits; TensorFlow's "SAME" padding, which at stride 2 pads right and below alone;
batch norm with eps .001 and decay .9. LwF: pixels standardised image by image on the 0..255 scale; IGAM: mean
subtracted, then scaled to unit L2 norm. `transferbench import-tf1` reads the authors' checkpoints
(models/weights/tf1/madry_variables.py has the names of their variables).
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.models.features import Layers
from transferbench.models.networks import Built

IDS = {
    "madry-wrn-32-10": "Madry's WRN-32-10 as LwF and Free AT use it: per-image standardisation, 32x32 RGB",
    "igam-wrn-32-10": "Madry's WRN-32-10 as IGAM's students use it: zero mean and unit L2 norm, 32x32 RGB",
}

_STAGES = ("stage1", "stage2", "stage3")
_UNITS, _WIDTHS, _STRIDES, _SLOPE = 5, (160, 320, 640), (1, 2, 2), 0.1


def standardise(x: Tensor) -> Tensor:
    """tf.image.per_image_standardization of [0,1] images on the 0..255 scale: (x - mean) / max(std, 1/sqrt(d))."""
    pixels = 255 * x.flatten(1)
    centred = pixels - pixels.mean(1, keepdim=True)
    # The minimum is applied before the root, whose gradient at 0 is infinite: a constant image has variance 0.
    variance = centred.square().mean(1, keepdim=True).clamp(min=1 / pixels.shape[1])
    return (centred / variance.sqrt()).view_as(x)


def unit_norm(x: Tensor) -> Tensor:
    """Each image minus its mean, divided by its L2 norm (at least 1e-12, so that a constant image stays finite)."""
    flat = x.flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    return (centred / centred.square().sum(1, keepdim=True).clamp(min=1e-24).sqrt()).view_as(x)


def pad_same(x: Tensor, stride: int) -> Tensor:
    """TensorFlow's "SAME" padding for a 3x3 convolution on an even side: one pixel on every side, at stride 2 only on
    the right and below."""
    return F.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))


class Unit(nn.Module):
    """A pre-activation residual unit. `active_first`: the shortcut takes the activated input as well."""

    def __init__(self, inputs: int, outputs: int, stride: int, active_first: bool) -> None:
        super().__init__()
        self.stride, self.active_first, self.new = stride, active_first, outputs - inputs
        self.bn1 = nn.BatchNorm2d(inputs, eps=1e-3)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.leaky_relu(self.bn1(x), _SLOPE)
        shortcut = active if self.active_first else x
        inner = self.conv1(pad_same(active, self.stride))
        inner = self.conv2(pad_same(F.leaky_relu(self.bn2(inner), _SLOPE), 1))
        if self.new:
            shortcut = F.avg_pool2d(shortcut, self.stride) if self.stride > 1 else shortcut
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.new // 2, self.new // 2))
        return inner + shortcut


class MadryWRN(nn.Module):
    """`unit_input`: images are scaled to unit L2 norm (IGAM) instead of being standardised (LwF)."""

    def __init__(self, num_classes: int, unit_input: bool) -> None:
        super().__init__()
        self.unit_input = unit_input
        self.conv1 = nn.Conv2d(3, 16, 3, bias=False)
        inputs = 16
        for stage, width, stride in zip(_STAGES, _WIDTHS, _STRIDES, strict=True):
            first = Unit(inputs, width, stride, stage == "stage1")
            setattr(self, stage, nn.Sequential(first, *(Unit(width, width, 1, False) for _ in range(_UNITS - 1))))
            inputs = width
        self.bn = nn.BatchNorm2d(inputs, eps=1e-3)
        self.head = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, math.sqrt(2 / (9 * module.out_channels)))

    def forward(self, x: Tensor) -> Tensor:
        x = unit_norm(x) if self.unit_input else standardise(x)
        x = self.conv1(pad_same(x, 1))
        for stage in _STAGES:
            x = getattr(self, stage)(x)
        return self.head(F.leaky_relu(self.bn(x), _SLOPE).mean((2, 3)))


def build(id: str, num_classes: int) -> Built:
    """WRN-32-10 with random weights, He's initialisation of the convolutions as in the TensorFlow code."""
    return Built(MadryWRN(num_classes, id == "igam-wrn-32-10"), Layers(_STAGES, "head"), (3, 32, 32))
