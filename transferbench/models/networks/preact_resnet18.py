"""Pre-activation ResNet-18 of E-AT: `preact-resnet18[:<activation>]`, no input normalisation.

The activation is `relu` or `softplus<beta>`, as robust-finetuning's `--act` names it; without one it is softplus1.

Croce and Hein 2022 (arXiv:2105.12508), robust-finetuning's `fast_models.py`: 3x3 stem of 64, four stages of two
blocks, widths 64/128/256/512, strides 1/2/2/2, block activation softplus(beta=1) (`softplus1` in its file names),
1x1 shortcuts that take the activated input, final batch norm and a *ReLU*, global pool, linear. The names of the
parameters are those of its checkpoints (`pretr_Linf.pth`, ...).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.models import batch_norm_means
from transferbench.models.features import Layers
from transferbench.models.networks import Built

IDS = {"preact-resnet18": "PreActResNet-18 of E-AT (robust-finetuning): softplus, or preact-resnet18:relu, 32x32 RGB"}

Activation = Callable[[Tensor], Tensor]
DEFAULT = "softplus1"

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
    candidates = {other: _activation(other, id) for other in dict.fromkeys((own, DEFAULT, "relu"))}
    blocks = [block for block in model.modules() if isinstance(block, PreActBlock)]
    made_by = batch_norm_means.activation_of([(block.bn1, block.conv1, block.bn2) for block in blocks], candidates, own)
    if made_by != own:
        raise InputError(
            f"weights {name}: trained with the activation {made_by}, as the running means of the batch norms show, not "
            f"{own}: name the network preact-resnet18:{made_by} (--network, or `network:` of the card)"
        )


def _name(id: str) -> str:
    return id.partition(":")[2] if ":" in id else DEFAULT


def _activation(name: str, id: str) -> Activation:
    """The function of that name. InputError for the ones of robust-finetuning that are not here, and any other."""
    softplus = re.fullmatch(r"softplus([1-9]\d*)", name)
    if name == "relu":
        return F.relu
    if softplus is None:
        raise InputError(f"network {id}: the activation is relu, or softplus<beta> with a whole beta (softplus1)")
    return F.softplus if softplus[1] == "1" else partial(F.softplus, beta=int(softplus[1]))
