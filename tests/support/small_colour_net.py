"""A small network for 32x32 colour images."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class Small(nn.Module):
    """About 0.3 ms per 32x32 colour image, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 64, 96)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, 1 if inputs == 3 else 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)
