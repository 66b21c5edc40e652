"""Pre-activation ResNet-18 of E-AT: `preact-resnet18[:<activation>]`, no input normalisation.

The activation is one of robust-finetuning's `--act`, by its name there; without one it is softplus1. None of them has
parameters.

    relu         max(x, 0)
    softplus<b>  log(1 + exp(b x)) / b, b a whole number
    3prelu<d>    0 below -d, x above d, and (x + d) / 2 between: continuous, with two kinks
    3psmooth<d>  0 below -d, x above d, and (x + d)^2 / (4 d) between: continuous, with a continuous derivative

Croce and Hein 2022 (arXiv:2105.12508), robust-finetuning's `fast_models.py`: 3x3 stem of 64, four stages of two
blocks, widths 64/128/256/512, strides 1/2/2/2, block activation softplus(beta=1) (`softplus1` in its file names),
1x1 shortcuts that take the activated input, final batch norm and a *ReLU*, global pool, linear. The names of the
parameters are those of its checkpoints (`pretr_Linf.pth`, ...).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.models import batch_norm_means
from transferbench.models.features import Layers
from transferbench.models.networks import Built

IDS = {"preact-resnet18": "PreActResNet-18 of E-AT: softplus1, or preact-resnet18:relu, :3prelu1, :3psmooth1, ..."}
NORMALISATION = "none"

Activation = Callable[[Tensor], Tensor]
DEFAULT = "softplus1"

_TOLD_APART = (DEFAULT, "relu", *(f"3p{kind}{width}" for kind in ("relu", "smooth") for width in ("0.5", "1", "2")))
"""The activations that weights are compared with, besides the one that the id states."""

_STAGES = ("layer1", "layer2", "layer3", "layer4")


class PreActBlock(nn.Module):
    """BN, activation, conv, BN, activation, conv, plus the shortcut: the identity, or a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(self.bn1(x))
        shortcut = self.shortcut(active) if hasattr(self, "shortcut") else x
        inner = self.conv1(active)
        return self.conv2(self.activation(self.bn2(inner))) + shortcut


class PreActResNet18(nn.Module):
    """Images [B, 3, 32, 32] in [0,1] -> logits [B, num_classes]."""

    def __init__(self, num_classes: int, activation: Activation = F.softplus) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        inputs = 64
        for name, width, stride in zip(_STAGES, (64, 128, 256, 512), (1, 2, 2, 2), strict=True):
            blocks = PreActBlock(inputs, width, stride, activation), PreActBlock(width, width, 1, activation)
            setattr(self, name, nn.Sequential(*blocks))
            inputs = width
        self.bn = nn.BatchNorm2d(512)
        self.linear = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for name in _STAGES:
            x = getattr(self, name)(x)
        return self.linear(F.relu(self.bn(x)).mean((2, 3)))


def build(id: str, num_classes: int) -> Built:
    """PreActResNet-18 with random weights. InputError for an activation that it does not have."""
    return Built(PreActResNet18(num_classes, _activation(_name(id), id)), Layers(_STAGES, "linear"), (3, 32, 32))


def unstated(id: str) -> str:
    """The activation, where the id leaves it to the default."""
    if ":" in id:
        return ""
    return f"activation {DEFAULT} (the default; --network preact-resnet18:relu is for weights trained with --act relu)"


def check_loaded(id: str, model: nn.Module, name: str) -> None:
    """InputError where the batch norms' running means were made by another activation than the id's."""
    own = _name(id)
    candidates = {other: _activation(other, id) for other in dict.fromkeys((own, *_TOLD_APART))}
    blocks = [block for block in model.modules() if isinstance(block, PreActBlock)]
    found = batch_norm_means.activations_of([(block.bn1, block.conv1, block.bn2) for block in blocks], candidates, own)
    if found != [own]:
        raise InputError(
            f"weights {name}: trained with the activation {' or '.join(found)}, as the running means of the batch "
            f"norms show, not {own}: name the network preact-resnet18:{found[0]} (--network, or `network:` of the card)"
        )


def _name(id: str) -> str:
    return id.partition(":")[2] if ":" in id else DEFAULT


def three_piece_relu(x: Tensor, d: float) -> Tensor:
    """0 below -d, (x + d) / 2 up to d, x above; tp_relu of robust-finetuning."""
    return torch.where(x > d, x, torch.where(x < -d, 0.0, 0.5 * (x + d)))


def three_piece_smooth(x: Tensor, d: float) -> Tensor:
    """0 below -d, (x + d)^2 / (4 d) up to d, x above; tp_smoothed_relu of robust-finetuning."""
    return torch.where(x > d, x, torch.where(x < -d, 0.0, (x + d) ** 2 / (4 * d)))


def _activation(name: str, id: str) -> Activation:
    """The function of that name. InputError for any other name, and for a width that is not above 0."""
    if name == "relu":
        return F.relu
    softplus = re.fullmatch(r"softplus([1-9]\d*)", name)
    if softplus is not None:
        return F.softplus if softplus[1] == "1" else partial(F.softplus, beta=int(softplus[1]))
    three_piece = re.fullmatch(r"3p(relu|smooth)(\d+(?:\.\d+)?|\.\d+)", name)
    if three_piece is None or float(three_piece[2]) == 0:
        raise InputError(
            f"network {id}: the activation is relu, softplus<beta> with a whole beta (softplus1), or 3prelu<d> or "
            "3psmooth<d> with a width d above 0 (3prelu1, 3psmooth0.5)"
        )
    return partial(three_piece_relu if three_piece[1] == "relu" else three_piece_smooth, d=float(three_piece[2]))
