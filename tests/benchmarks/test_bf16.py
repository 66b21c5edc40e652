"""Searches in bfloat16 against those in fp32 and against the reference: verdicts, and CPU time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.photographs import crops
from support.small_colour_net import Small
from torch import nn

import transferbench
from transferbench import data, methods
from transferbench.base.full_precision import full_precision
from transferbench.base.settings import EngineOptions
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel
from transferbench.engine import bf16
from transferbench.engine.chain import Target, run_whole
from transferbench.engine.chain import run_chain as engine
from transferbench.engine.verdicts import ChainResult, Examples
from transferbench.methods import Network
from transferbench.models import networks
from transferbench.models.features import find_layers
from transferbench.models.loaders import robustbench_package
from transferbench.models.victims import load
from transferbench.training import loop

pytestmark = pytest.mark.skipif(not bf16.has_bf16(torch.device("cpu")), reason="no native bfloat16")

VERDICTS = "Verdicts of searches in bf16"
ABOUT_VERDICTS = (
    "E-AT's protocol (10 x 100) on the 500 validation letters, at radii at which the nets are 30 to 80 % robust. The "
    f"threshold below which an example is searched again in fp32, a margin of {bf16.NEAR} of the logit range, was "
    "chosen on them. *Another seed* counts the same in fp32 with other random starts: what a search misses by chance."
)
VERDICTS_HEADER = [
    "net, threat", "robust fp32", "robust bf16", "fp32 broke, bf16 did not", "the other way", "searched again",
    "another seed: missed", "the other way", "CPU time fp32/bf16",
]  # fmt: skip
PHOTOGRAPHS = "Verdicts of searches in bf16 on CIFAR-10"
ABOUT_PHOTOGRAPHS = (
    "E-AT's protocol (10 x 100) on a network of three convolutions that was trained for 900 steps on "
    "20,000 training images, on which nothing was chosen; test images of a JPEG copy. Examples are named by id."
)
PHOTOGRAPHS_HEADER = [
    "threat", "n", "robust fp32", "robust bf16", "fp32 broke, bf16 did not", "the other way", "searched again",
    "CPU time fp32/bf16",
]  # fmt: skip
SPEED = "Speed of searches in bf16"
ABOUT_SPEED = (
    "CPU time of `pyautoattack` (APGD-CE, APGD-T, Linf) over ours, on examples that nothing breaks: photograph crops "
    "with the networks' own predictions at a radius of 1e-5. The preparation of the network is in ours."
)
SPEED_HEADER = ["victim", "n", "fp32", "bf16", "searched again"]


def run(model: nn.Module, given: Examples, chain: Chain, precision: Any, seed: int = 0) -> tuple[ChainResult, float]:
    began = time.process_time()
    with full_precision():
        target = Target.prepare(model, given.x, given.y, None, EngineOptions(precision=precision))
        result = run_whole(engine, target, chain, given, seed)
    return result, time.process_time() - began


def chain_of(norm: str, eps: str) -> Chain:
    names = (("l1-screen",) if norm == "L1" else ()) + ("apgd-ce", "apgd-t")
    return Chain(norm, ThreatModel.parse(norm, eps), tuple(AttackSpec.of(name) for name in names))


def standing(result: ChainResult) -> list[bool]:
    return [not verdict.fooled for verdict in result.verdicts]


def missed(first: list[bool], second: list[bool]) -> int:
    """Examples that the first search broke and the second did not."""
    return sum(not one and other for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("name", "norm", "eps"),
    [
        ("letters-madry", "Linf", "0.12"), ("letters-madry", "L2", "0.5"), ("letters-madry", "L1", "1.2"),
        ("letters-natural", "Linf", "0.05"), ("letters-natural", "L2", "0.2"), ("letters-natural", "L1", "0.8"),
    ],
)  # fmt: skip
def test_verdicts(name: str, norm: str, eps: str, benchmark: Any, note: Callable[..., None]) -> None:
    letters = data.load("letters", "val").on("cpu")
    given, chain, model = Examples(letters.pixels, letters.labels, letters.ids), chain_of(norm, eps), load(name).model

    def compare() -> tuple[Any, ...]:
        return run(model, given, chain, "fp32"), run(model, given, chain, "bf16"), run(model, given, chain, "fp32", 1)

    (exact, slow), (low, fast), (other, _) = benchmark.pedantic(compare, rounds=1)
    robust = [standing(one) for one in (exact, low, other)]
    counts = [missed(robust[0], robust[1]), missed(robust[1], robust[0]), low.searched_again]
    counts += [missed(robust[0], robust[2]), missed(robust[2], robust[0])]
    row = [f"{name}, {norm} {eps}", str(sum(robust[0])), str(sum(robust[1])), *map(str, counts), f"{slow / fast:.2f}"]
    note(VERDICTS, ABOUT_VERDICTS, VERDICTS_HEADER, row)


@pytest.fixture(scope="module")
def photographs() -> tuple[nn.Module, Examples]:
    """A small network that was trained on CIFAR-10 of TRANSFERBENCH_DATA, and 450 test images."""
    place = Path(os.environ.get("TRANSFERBENCH_DATA", "none"))
    if not (place / "cifar10-jpeg" / "train").is_dir():
        pytest.skip("needs cifar10-jpeg below TRANSFERBENCH_DATA")
    id = f"folder:{place / 'cifar10-jpeg'}"
    train, test = data.load(id, "train"), data.load(id, "test").first(450).on("cpu")
    settings = {"steps": 900, "batch_size": 128, "lr": 0.1, "schedule": "onecycle"}
    torch.manual_seed(0)
    fresh: Callable[[], Network] = lambda: Network(Small(), find_layers(Small()))  # noqa: E731
    done = loop.fit(methods.build("natural", settings), None, fresh, train, None)
    return done.network.model, Examples(test.pixels, test.labels, test.ids)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", "1/255"), ("L2", "0.12"), ("L1", "1")])
def test_verdicts_on_photographs(
    norm: str, eps: str, photographs: tuple[nn.Module, Examples], benchmark: Any, note: Callable[..., None]
) -> None:
    model, given = photographs
    chain = chain_of(norm, eps)
    found = benchmark.pedantic(lambda: [run(model, given, chain, one) for one in ("fp32", "bf16")], rounds=1)
    (exact, slow), (low, fast) = found
    robust = [standing(exact), standing(low)]
    names = [str(v.example) for v, one, other in zip(exact.verdicts, *robust, strict=True) if other and not one]
    counts = [len(given.x), sum(robust[0]), sum(robust[1]), ", ".join(names) or "none", missed(robust[1], robust[0])]
    row = [f"{norm} {eps}", *map(str, counts), str(low.searched_again), f"{slow / fast:.2f}"]
    note(PHOTOGRAPHS, ABOUT_PHOTOGRAPHS, PHOTOGRAPHS_HEADER, row)


def wide() -> nn.Module:
    robustbench_package.model_dicts()
    from robustbench.model_zoo.architectures.wide_resnet import WideResNet

    return WideResNet(28, 10, 10)


CASES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ResNet-18": (lambda: load("AA_ResNet18").model, 4),
    "PreActResNet-18, untrained": (lambda: networks.build("preact-resnet18", 10).model, 4),
    "WideResNet-28-10, untrained": (wide, 2),
}


@pytest.mark.parametrize("name", list(CASES))
def test_speed(name: str, benchmark: Any, note: Callable[..., None]) -> None:
    make, n = CASES[name]
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    x = crops()[:n]
    with torch.no_grad():
        given = Examples(x, model(x).argmax(1), torch.arange(n))
    chain = chain_of("Linf", "1e-5")

    def compare() -> tuple[float, float, float, int]:
        began = time.process_time()
        transferbench.evaluate(model, given.x, given.y, {"Linf": "1e-5"}, backend="autoattack")
        theirs = time.process_time() - began
        (_, slow), (low, fast) = (run(model, given, chain, precision) for precision in ("fp32", "bf16"))
        return theirs, slow, fast, low.searched_again

    theirs, slow, fast, again = benchmark.pedantic(compare, rounds=1)
    note(SPEED, ABOUT_SPEED, SPEED_HEADER, [name, str(n), f"{theirs / slow:.2f}", f"{theirs / fast:.2f}", str(again)])
