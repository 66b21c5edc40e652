"""What the engine adds to the bare forward and backward passes it makes, at 64 rows in flight."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from photographs import crops
from small import Small

from transferbench.engine.evaluate import Target, run_chain
from transferbench.types import AttackSpec, Chain, Norm, ThreatModel
from transferbench.victims import load

TITLE = "Overhead over bare passes"
WHAT = (
    "CPU time of a chain on survivors at 64 rows in flight (judge included), over the same number of forward and "
    "backward passes of the same frozen copy alone: the median of 9 pairs of 100 iterations on the small "
    "net, one pair of 40 on ResNet-18. The radius is so small that nothing falls."
)
TINY: dict[Norm, str] = {"Linf": "1e-5", "L2": "1e-4", "L1": "1e-3"}


def bare(network: Callable[[Tensor], Tensor], x: Tensor, passes: int) -> float:
    """CPU seconds of `passes` forward and backward passes of the batch x."""
    began = time.process_time()
    for _ in range(passes):
        point = x.detach().requires_grad_()
        torch.autograd.grad(network(point).sum(), point)
    return time.process_time() - began


@pytest.mark.parametrize(("name", "n_iter"), [("small", 100), ("ResNet-18", 40)])
def test_overhead(name: str, n_iter: int, benchmark: Any, note: Callable[..., None]) -> None:
    torch.manual_seed(0)
    model = Small().eval() if name == "small" else load("AA_ResNet18").model
    x = torch.cat([crops(), crops().flip(3)])[:64]
    with torch.no_grad():
        y = model(x).argmax(1)
    target = Target.prepare(model, x, y, 64)
    ids, cells, shares = torch.arange(64), [], {}

    def measure() -> None:
        for norm, eps in TINY.items():
            threat = ThreatModel.parse(norm, eps)
            warm, chain = (
                Chain(norm, threat, (AttackSpec.of("apgd-ce", n_iter=steps, restarts=1),)) for steps in (4, n_iter)
            )
            run_chain(target, warm, x, y, ids, 0)
            tries = []
            for _ in range(9 if name == "small" else 1):
                alone = bare(target.frozen.network, x, n_iter + (3 if norm == "L1" else 1))
                began = time.process_time()
                done = run_chain(target, chain, x, y, ids, 0)
                tries.append((time.process_time() - began) / alone - 1)
                assert not any(verdict.fooled for verdict in done.verdicts)
            shares[norm] = sorted(tries)[len(tries) // 2]

    benchmark.pedantic(measure, rounds=1)
    cells = [f"{100 * shares[norm]:.1f} %" for norm in TINY]
    each = 1000 * bare(target.frozen.network, x, 3) / 3 / 64
    note(TITLE, WHAT, ["net", "ms per image", *TINY], [name, f"{each:.2f}", *cells])
