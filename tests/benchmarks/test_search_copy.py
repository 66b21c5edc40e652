"""What the search model saves per pass: the model as it is, its plain copy, and the copy with folded batch norm."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from support.photographs import crops
from torch import nn

from transferbench.engine.gradients import outputs
from transferbench.engine.search_model import as_is, copy_of
from transferbench.models.victims import load

TITLE = "The search model"
ABOUT = (
    "CPU time of a forward and a backward pass of the model as it is, with its parameters frozen, over that of its "
    "copy on which attacks search: in the channels_last layout, and with batch norm folded and ReLUs in place too. "
    "Batches of 16 photographs, in turn, medians of 15 passes. The networks of timm and torchvision are untrained."
)
HEADER = ["network", "side", "ms per image as it is", "plain copy", "folded copy"]
ROUNDS = 15

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "timm tf_efficientnet_lite0": (lambda: timm.create_model("tf_efficientnet_lite0"), 128),
    "timm efficientnet_b0": (lambda: timm.create_model("efficientnet_b0"), 128),
    "torchvision MobileNetV2": (lambda: torchvision.models.mobilenet_v2(), 128),
    "ResNet-18, CIFAR-10": (lambda: load("AA_ResNet18").model, 32),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_search_model(name: str, benchmark: Any, note: Callable[..., None]) -> None:
    build, side = NETWORKS[name]
    torch.manual_seed(0)
    model = build().eval().requires_grad_(False)
    x = nn.functional.interpolate(crops()[:16], (side, side), mode="bilinear")
    searches = [as_is(model), copy_of(model, x, fold=False), copy_of(model, x)]
    assert [search.folded for search in searches] == [False, False, True]

    def compare() -> list[float]:
        times: list[list[float]] = [[], [], []]
        for _ in range(ROUNDS):
            for search, seconds in zip(searches, times, strict=True):
                began = time.process_time()
                outputs(search.network, x)
                seconds.append(time.process_time() - began)
        return [statistics.median(seconds) for seconds in times]

    whole, plain, folded = benchmark.pedantic(compare, rounds=1)
    row = [name, str(side), f"{1e3 * whole / len(x):.1f}", f"{whole / plain:.2f}", f"{whole / folded:.2f}"]
    note(TITLE, ABOUT, HEADER, row)
