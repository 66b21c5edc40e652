"""Small trained nets on real data that come with the package, shared by the whole session."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import settings
from torch import Tensor, nn

from transferbench import data
from transferbench.models import networks
from transferbench.models.cards import ModelCard
from transferbench.models.networks import small_resnet
from transferbench.models.victim import Victim

torch.set_num_threads(1)
# Examples are bounded in number; on a busy machine a single one may take long.
settings.register_profile("transferbench", deadline=None, print_blob=True)
settings.load_profile("transferbench")


LONG = ("test_replay.py", "test_cluster.py", "test_smoke.py", "test_resume.py")
"""Begun first: a worker that meets a long test at the end works on while the others are idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


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


@pytest.fixture(scope="session")
def small() -> Small:
    return train_small(10, 80, 60)


@pytest.fixture
def small_victim(small: Small) -> Victim:
    """The small network as a source that was trained on 8x8 grey images of ten classes."""
    names = tuple(f"class{label}" for label in range(10))
    card = ModelCard(
        id="small", network="small-resnet", dataset="x", classes=names, input_shape=(1, 8, 8), method="natural"
    )
    built = networks.build("small-resnet", 10)
    return Victim(card, small.model, built.layers, "0" * 64)


class Linear(nn.Module):
    """Logits W x + b: the distance to the boundary is known in closed form in every norm."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.weight, self.bias)


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """leaderboard.csv of the tests' suite, from a run that nothing disturbed."""
    from suite import go

    root = tmp_path_factory.mktemp("unbroken") / "out"
    go(root)
    return (root / "leaderboard.csv").read_bytes()
