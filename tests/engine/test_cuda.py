"""On a GPU: the same verdicts as on the CPU up to ties, whatever the batch size; every form of model and image works.

Skipped where there is no GPU.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.nets import Around, Small
from support.photographs import crops
from torch import Tensor

import transferbench
from transferbench.base.full_precision import full_precision
from transferbench.base.settings import MIN_ROWS
from transferbench.engine.preflight import check_model
from transferbench.models import victims

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

THREATS = {"Linf": "0.06", "L2": 0.25, "L1": "0.9"}


@pytest.fixture(scope="module")
def on_gpu(small: Small) -> Small:
    return Small(copy.deepcopy(small.model).cuda(), small.x.cuda(), small.y.cuda(), small.ids.cuda())


def evaluate(model: Any, case: Small, **more: Any) -> transferbench.Report:
    return transferbench.evaluate(model, case.x, case.y, THREATS, **{"n_iter": 20, **more})


def test_verdicts_are_those_of_the_cpu_up_to_ties(small: Small, on_gpu: Small) -> None:
    cpu, gpu = evaluate(small.model, small), evaluate(on_gpu.model, on_gpu)
    assert gpu.flags == cpu.flags == ()
    assert gpu.clean == cpu.clean
    for name, rate in cpu.robust.items():
        # A try may find another point after rounding; few examples stand that close.
        assert abs(gpu.robust[name] - rate) <= 2 / len(small.x)


@pytest.mark.parametrize("batch", [5, MIN_ROWS, 37, 256])
def test_verdicts_do_not_depend_on_the_batch_size(on_gpu: Small, batch: int) -> None:
    expected, report = evaluate(on_gpu.model, on_gpu), evaluate(on_gpu.model, on_gpu, batch_size=batch)
    for name, rate in expected.robust.items():
        assert abs(report.robust[name] - rate) <= 1 / len(on_gpu.x)
    assert "mixes-rows" not in report.flags


def test_a_real_network_does_not_mix_rows(on_gpu: Small) -> None:
    """Batches of a few images take other convolution algorithms on a GPU; that is rounding, unless TF32 is on."""
    victim = victims.load("AA_ResNet18").to("cuda")
    with full_precision():
        report = check_model(victim.model, crops().cuda()[:16], None, 64)
    assert report.flags == ()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_every_precision(on_gpu: Small, dtype: torch.dtype) -> None:
    low = copy.deepcopy(on_gpu.model).to(dtype)
    report = evaluate(low, on_gpu)
    assert report.flags == ()
    assert abs(report.robust["Linf"] - evaluate(on_gpu.model, on_gpu).robust["Linf"]) <= 0.1


def test_autocast_around_changes_nothing_and_inside_works(on_gpu: Small) -> None:
    expected = evaluate(on_gpu.model, on_gpu)
    with torch.autocast("cuda", dtype=torch.float16):
        around = evaluate(on_gpu.model, on_gpu)
    assert around.robust == expected.robust

    def inside(x: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return on_gpu.model(x)

    report = evaluate(inside, on_gpu)
    assert "mixes-rows" not in report.flags
    assert abs(report.robust["Linf"] - expected.robust["Linf"]) <= 0.1


def test_a_default_device_of_the_caller_changes_nothing(small: Small, on_gpu: Small) -> None:
    expected = evaluate(on_gpu.model, on_gpu)
    torch.set_default_device("cuda")
    try:
        assert evaluate(on_gpu.model, on_gpu).robust == expected.robust
        assert torch.get_default_device().type == "cuda"
    finally:
        torch.set_default_device("cpu")


class Mixing(Around):
    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        return z - z.mean(0, keepdim=True)


def test_dependence_on_the_batch_is_flagged(on_gpu: Small) -> None:
    report = evaluate(Mixing(on_gpu.model), on_gpu, batch_size=40)
    assert "mixes-rows" in report.flags
    assert report.batch == 40
