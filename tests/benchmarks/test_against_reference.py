"""Ours against pyautoattack on the same work: the E-AT protocol per norm, fp32."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.photographs import crops
from support.small_colour_net import Small
from torch import Tensor, nn

import transferbench
from transferbench import data, methods
from transferbench.api import Report
from transferbench.methods import Network
from transferbench.models import networks
from transferbench.models.loaders import robustbench_package
from transferbench.models.victims import load
from transferbench.training import loop

TITLE = "Against the reference"
WHAT = (
    "CPU time of `pyautoattack` (APGD-CE, APGD-T) over ours, per norm and for all norms in one call of ours. `passes` "
    "are ours, backwards and wasted, per clean-correct example, `reference` the reference's backwards. The last "
    "columns compare survivors over the norms: starts differ, so single ones may. ResNet-18 is the CIFAR-10 net that "
    "pyautoattack ships (not robust; at .25/255 it is), WideResNet-16-4 is RobustBench's architecture; the "
    "untrained ones are robust at the radii they are given. 8x8 is an adversarially trained net of .07 ms on drawn "
    "letters."
)
HEADER = ["victim", "n", "Linf", "L2", "L1", "all", "without screen", "passes", "reference", "survivors", "reference's"]


@dataclass(frozen=True)
class Case:
    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    threats: dict[str, str]


def _images() -> tuple[Tensor, Tensor | None, str]:
    """CIFAR-10 test images where TRANSFERBENCH_DATA has them, else photographs that come with scikit-learn."""
    place = os.environ.get("TRANSFERBENCH_DATA")
    if place and (Path(place) / "cifar10-jpeg" / "test").is_dir():
        test = data.load(f"folder:{place}/cifar10-jpeg", "test").first(56)
        return test.pixels, test.labels, "CIFAR-10 (JPEG copy)"
    return crops(), None, "photographs"


def _resnet(threats: dict[str, str], n: int, note: str) -> Case:
    model = load("AA_ResNet18").model
    x, y, name = _images()
    predicted = torch.cat([model(part).argmax(1) for part in x.split(16)])
    keep = (predicted == y).nonzero().flatten()[:n] if y is not None else torch.arange(n)
    return Case(f"ResNet-18, {note}, {name}", model, x[keep], predicted[keep], threats)


def _untrained(name: str, model: nn.Module, n: int, threats: dict[str, str]) -> Case:
    """Radii so small that no example is fooled: what a robust victim costs does not depend on its weights."""
    model.eval()
    x = crops()[:n]
    with torch.no_grad():
        y = model(x).argmax(1)
    return Case(f"{name}, untrained, photographs", model, x, y, threats)


def _wide_resnet(n: int) -> Case:
    robustbench_package.model_dicts()
    from robustbench.model_zoo.architectures.wide_resnet import WideResNet

    torch.manual_seed(0)
    return _untrained("WideResNet-16-4", WideResNet(16, 10, 4), n, {"Linf": "1e-5"})


def _small_colour(n: int) -> Case:
    torch.manual_seed(0)
    return _untrained("small, 32x32", Small(), n, {"Linf": "1e-5", "L2": "1e-4", "L1": "1e-3"})


def _small(n: int) -> Case:
    given = {
        "steps": 350,
        "batch_size": 128,
        "lr": 0.1,
        "schedule": "onecycle",
        "eps": "0.1",
        "k": 2,
        "step_size": 0.75,
    }
    letters = [data.load("letters", split) for split in ("train", "val")]
    fresh: Callable[[], Network] = lambda: Network(*networks.build("small-resnet", 26)[:2])  # noqa: E731
    done = loop.fit(methods.build("madry", given), None, fresh, *letters)
    test = data.load("letters", "test").first(n)
    return Case(
        "small, 8x8, robust", done.network.model, test.images, test.labels, {"Linf": "0.1", "L2": "0.4", "L1": "1.5"}
    )


CASES: dict[str, Callable[[], Case]] = {
    "resnet-broken": lambda: _resnet({"Linf": "8/255", "L2": "0.5", "L1": "12"}, 48, "not robust"),
    "resnet-robust": lambda: _resnet({"Linf": "1/1020"}, 4, "robust at .25/255"),
    "wide-resnet-robust": lambda: _wide_resnet(4),
    "small-colour-robust": lambda: _small_colour(16),
    "small-robust": lambda: _small(60),
}


def timed(call: Callable[[], Report]) -> tuple[float, Report]:
    began = time.process_time()
    report = call()
    return time.process_time() - began, report


@pytest.mark.parametrize("name", list(CASES))
def test_ratio(name: str, benchmark: Any, note: Callable[..., None]) -> None:
    case = CASES[name]()
    transferbench.evaluate(case.model, case.x[:4], case.y[:4], case.threats, n_iter=2)
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    reports: dict[str, tuple[Report, Report]] = {}
    together = {True: 0.0, False: 0.0}

    def alternate() -> None:
        for norm, eps in case.threats.items():
            common = {"threats": {norm: eps}, "seed": 0}
            ours[norm], mine = timed(lambda c=common: transferbench.evaluate(case.model, case.x, case.y, **c))
            theirs[norm], other = timed(
                lambda c=common: transferbench.evaluate(case.model, case.x, case.y, backend="autoattack", **c)
            )
            reports[norm] = mine, other
        for screen in together if len(case.threats) > 1 else ():
            given = {"threats": case.threats, "seed": 0, "screen": screen}
            together[screen], _ = timed(lambda g=given: transferbench.evaluate(case.model, case.x, case.y, **g))

    benchmark.pedantic(alternate, rounds=1)
    correct = round(next(iter(reports.values()))[0].clean * len(case.x))
    passes = sum(mine.cost.backwards + mine.cost.wasted for mine, _ in reports.values()) / correct
    reference = sum(other.cost.backwards for _, other in reports.values()) / correct
    total = sum(theirs.values())
    in_one_call = {screen: seconds or sum(ours.values()) for screen, seconds in together.items()}
    survivors = [sum(round(pair[side].robust[norm] * len(case.x)) for norm, pair in reports.items()) for side in (0, 1)]
    row = [
        case.name,
        str(len(case.x)),
        *(f"{theirs[norm] / ours[norm]:.2f}" if norm in ours else "" for norm in ("Linf", "L2", "L1")),
        f"{total / in_one_call[True]:.2f}",
        f"{total / in_one_call[False]:.2f}",
        f"{passes:.1f}",
        f"{reference:.1f}",
        *map(str, survivors),
    ]
    note(TITLE, WHAT, HEADER, row)
