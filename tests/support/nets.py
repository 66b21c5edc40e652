"""Small networks on images that come with the package."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferbench import data
from transferbench.models.networks import small_resnet


@dataclass(frozen=True)
class Small:
    """A net on letters, its first test images with labels and ids, and its logits on them."""

    model: nn.Module
    x: Tensor
    y: Tensor
    ids: Tensor

    @property
    def logits(self) -> Tensor:
        with torch.no_grad():
            return self.model(self.x)

    def correct(self) -> Small:
        keep = self.logits.argmax(1) == self.y
        return Small(self.model, self.x[keep], self.y[keep], self.ids[keep])

    def first(self, n: int) -> Small:
        return Small(self.model, self.x[:n], self.y[:n], self.ids[:n])


def train_small(classes: int, steps: int, n: int, noise: float = 0.1) -> Small:
    """The demo's network, trained on noisy letters of the first `classes` classes: partly robust."""
    train, test = data.load("letters", "train"), data.load("letters", "test")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mine = (train.labels < classes).nonzero().flatten()
        model = small_resnet.build("small-resnet", classes).model
        optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        for _ in range(steps):
            at = mine[torch.randint(len(mine), (128,))]
            x = (train.images[at] + noise * torch.randn(128, 1, 8, 8)).clamp(0, 1)
            loss = F.cross_entropy(model(x), train.labels[at])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    optimiser.zero_grad()
    keep = (test.labels < classes).nonzero().flatten()[:n]
    return Small(model.eval(), test.images[keep], test.labels[keep], test.ids[keep])


class Linear(nn.Module):
    """Logits W x + b: the distance to the boundary is known in closed form in every norm."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.weight, self.bias)


class Around(nn.Module):
    """A net in eval mode whose subclass changes its input or its output."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.eval()
