"""What the engine adds to the bare forward and backward passes it makes, at 64 rows in flight."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.photographs import crops
from support.small_colour_net import Small
from torch import Tensor

from transferbench.base.specifications import AttackSpec, Chain, Norm, ThreatModel
from transferbench.engine.chain import Target, run_chain
from transferbench.engine.verdicts import Examples
from transferbench.models.victims import load

TITLE = "Overhead over bare passes"
WHAT = (
    "CPU time of a chain on survivors at 64 rows in flight over that of the passes it makes, alone: a forward and a "
    "backward pass of the search model per iteration, and one forward pass of the model that confirms the tries' best "
    "points. A bare pass runs after every iteration, so that both see the same machine; the median of 9 runs of 100 "
    "iterations on the small net, one run of 40 on ResNet-18. The radius is so small that no example is fooled."
)
TINY: dict[Norm, str] = {"Linf": "1e-5", "L2": "1e-4", "L1": "1e-3"}


def bare(network: Callable[[Tensor], Tensor], x: Tensor, backward: bool = True) -> float:
    """CPU seconds of one forward pass of the batch x, and of the backward pass."""
    began = time.process_time()
    point = x.detach().requires_grad_(backward)
    output = network(point)
    if backward:
        torch.autograd.grad(output.sum(), point)
    del output
    return time.process_time() - began


def share(target: Target, chain: Chain, x: Tensor, y: Tensor) -> float:
    """What the chain costs beyond its passes, as a share of these."""
    alone: list[float] = []

    def iterated(*_: int) -> None:
        alone.append(bare(target.search.network, x))

    began = time.process_time()
    done = run_chain(target, chain, Examples(x, y, torch.arange(len(x))), 0, iterated)
    chained = time.process_time() - began - sum(alone)
    assert not any(verdict.fooled for verdict in done.verdicts)
    with torch.no_grad():
        confirming = bare(target.judge.model, x, backward=False)
    return chained / (sum(alone) + confirming) - 1


@pytest.mark.parametrize(("name", "n_iter", "runs"), [("small", 100, 9), ("ResNet-18", 40, 1)])
def test_overhead(name: str, n_iter: int, runs: int, benchmark: Any, note: Callable[..., None]) -> None:
    torch.manual_seed(0)
    model = Small().eval() if name == "small" else load("AA_ResNet18").model
    x = torch.cat([crops(), crops().flip(3)])[:64]
    with torch.no_grad():
        y = model(x).argmax(1)
    target = Target.prepare(model, x, y, 64)
    shares: dict[Norm, float] = {}

    def measure() -> None:
        for norm, eps in TINY.items():
            threat = ThreatModel.parse(norm, eps)
            warm, chain = (
                Chain(norm, threat, (AttackSpec.of("apgd-ce", n_iter=steps, restarts=1),)) for steps in (4, n_iter)
            )
            run_chain(target, warm, Examples(x, y, torch.arange(len(x))), 0)
            shares[norm] = statistics.median(share(target, chain, x, y) for _ in range(runs))

    benchmark.pedantic(measure, rounds=1)
    cells = [f"{100 * shares[norm]:.1f} %" for norm in TINY]
    each = 1000 * statistics.median(bare(target.search.network, x) for _ in range(5)) / 64
    note(TITLE, WHAT, ["net", "ms per image", *TINY], [name, f"{each:.2f}", *cells])
