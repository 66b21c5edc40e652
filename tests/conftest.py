"""Fixtures of the whole session, and the order in which test files begin."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings
from support.nets import Linear, Small, train_small
from support.tiny_suite import run_tiny

from transferbench.base import full_precision
from transferbench.models import networks
from transferbench.models.cards import ModelCard
from transferbench.models.victim import Victim

__all__ = ["Linear", "Small", "train_small"]

# Two test processes share two cores; the processes that they start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
# Examples are bounded in number; on a busy machine a single one may take long.
settings.register_profile("transferbench", deadline=None, print_blob=True)
settings.load_profile("transferbench")


LONG = ("test_replay.py", "test_dask.py", "test_smoke.py", "test_scheduler.py")
"""Begun first: a worker that meets a long test at the end works on while the others are idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where the fixture `small` lies: cpu or cuda")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") != "cpu":
        # Tests also call networks directly, whose convolutions torch runs in TF32 otherwise.
        full_precision.switch_on()


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def small(device: str) -> Small:
    made = train_small(10, 80, 60)
    return Small(made.model.to(device), made.x.to(device), made.y.to(device), made.ids.to(device))


@pytest.fixture
def small_victim(small: Small) -> Victim:
    """The small network as a source that was trained on 8x8 grey images of ten classes."""
    names = tuple(f"class{label}" for label in range(10))
    card = ModelCard(
        id="small", network="small-resnet", dataset="x", classes=names, input_shape=(1, 8, 8), method="natural"
    )
    built = networks.build("small-resnet", 10)
    return Victim(card, small.model, built.layers, "0" * 64)


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """leaderboard.csv of the tests' suite, from a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("unbroken") / "out"
    run_tiny(root)
    return (root / "leaderboard.csv").read_bytes()
