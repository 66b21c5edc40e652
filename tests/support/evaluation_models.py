"""Networks that `eval` takes as python:support.evaluation_models:<function>: 32x32 colour images in three classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from support.small_colour_net import Small


def _net(head: int) -> nn.Module:
    torch.manual_seed(0)
    net = Small()
    torch.manual_seed(head)
    net.body[-1] = nn.Linear(96, 3)
    return net.eval()


class Noisy(nn.Module):
    """The network behind Gaussian noise of .05."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.05 * torch.randn_like(x))


class OwnGenerator(Noisy):
    """Much noise, from a generator that nobody else can seed."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.generator = torch.Generator()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.5 * torch.randn(x.shape, generator=self.generator))


def own_generator() -> nn.Module:
    return OwnGenerator(victim()).eval()


def public() -> nn.Module:
    return _net(1)


def victim() -> nn.Module:
    return _net(2)


def noisy() -> nn.Module:
    return Noisy(victim()).eval()


_functions: list[Any] = [public, victim, noisy, own_generator]
for function in _functions:
    function.input_shape, function.classes, function.fingerprint = (3, 32, 32), 3, function.__name__
