"""Peak host memory beside the reference's on the same batch, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TITLE = "Memory"
WHAT = (
    "Peak resident memory of a process that attacks 48 photograph crops with the ResNet-18 that pyautoattack ships, "
    "APGD-CE with 10 iterations, 48 rows in flight, at a radius at which the crops stand."
)
THREATS = {"Linf": "1e-5", "L2": "1e-4", "L1": "1e-3"}

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
import transferbench
from photographs import crops
from transferbench.victims import load
model, x = load("AA_ResNet18").model, crops()
with torch.no_grad():
    y = model(x).argmax(1)
backend, norm, eps = sys.argv[2:]
if backend == "transferbench":
    transferbench.evaluate(model, x, y, {norm: eps}, ("apgd-ce",), n_iter=10, screen=False, batch_size=48)
else:
    from pyautoattack.autopgd_base import APGDAttack
    attack = APGDAttack(model, n_iter=10, n_restarts=5, norm=norm, eps=float(eps), device="cpu")
    attack.use_largereps = norm == "L1"
    attack.perturb(x, y)
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
"""


def peak(backend: str, norm: str, eps: str) -> int:
    """MiB. Not ru_maxrss: a child begins with its parent's."""
    here = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, here, backend, norm, eps], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory(benchmark: Any, note: Callable[..., None]) -> None:
    cells: dict[str, tuple[int, int]] = {}

    def measure() -> None:
        for norm, eps in THREATS.items():
            cells[norm] = peak("transferbench", norm, eps), peak("reference", norm, eps)

    benchmark.pedantic(measure, rounds=1)
    for norm, (ours, reference) in cells.items():
        note(
            TITLE,
            WHAT,
            ["norm", "ours, MiB", "reference, MiB", "ratio"],
            [norm, str(ours), str(reference), f"{ours / reference:.2f}"],
        )
