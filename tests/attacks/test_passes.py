"""How many passes a non-robust net costs: exact counts on a real ResNet-18 and real images."""

from __future__ import annotations

import torch
from support.photographs import crops

import transferbench
from transferbench.models.victims import load


def test_a_broken_net_costs_ten_passes_where_the_reference_makes_three_hundred() -> None:
    model, x = load("AA_ResNet18").model, crops(8)
    with torch.no_grad():
        y = model(x).argmax(1)
    report = transferbench.evaluate(model, x, y, {"Linf": "8/255", "L2": 0.5, "L1": 12}, seed=0)
    assert report.clean == 1
    assert report.union == 0
    assert (report.cost.backwards + report.cost.wasted) / len(x) <= 10
