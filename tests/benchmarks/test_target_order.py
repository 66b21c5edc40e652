"""What MALT's order of target classes finds, and what it costs, beside the order of the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import transferbench
from transferbench import data
from transferbench.models.victims import load

TITLE = "Order of target classes"
HEADER = ["net, threat", "targets", "robust, logits", "robust, malt", "backwards, logits", "backwards, malt"]
INTRODUCTION = (
    "`apgd-t` alone with 50 iterations on the 200 letters: how many are robust after it, and backward passes per "
    "clean-correct example, with the targets by their logits and in MALT's order (25 backward passes for an order, "
    "of 26 classes). letters-madry at the suite's radii, letters-natural at a third of them."
)
RADII = {
    "letters-madry": {"Linf": "0.1", "L2": "0.4", "L1": "1.5"},
    "letters-natural": {"Linf": "0.1/3", "L2": "0.4/3", "L1": "0.5"},
}
CASES = [(name, norm, targets) for name, radii in RADII.items() for norm in radii for targets in (1, 3, 9)]


@pytest.mark.parametrize(("name", "norm", "targets"), CASES)
def test_orders(name: str, norm: str, targets: int, benchmark: Any, note: Callable[..., None]) -> None:
    letters = data.load("letters", "test").first(200)
    eps = RADII[name][norm]

    def measure() -> dict[str, transferbench.Report]:
        return {
            order: transferbench.evaluate(
                load(name).model,
                letters.pixels,
                letters.labels,
                {norm: eps},
                attacks=f"apgd-t:targets={targets}:order={order}",
                n_iter=50,
            )
            for order in ("logits", "malt")
        }

    reports = benchmark.pedantic(measure, rounds=1)
    robust = [f"{round(200 * report.robust[norm])}" for report in reports.values()]
    backwards = [f"{report.cost.backwards / (200 * report.clean):.1f}" for report in reports.values()]
    note(TITLE, INTRODUCTION, HEADER, [f"{name}, {norm} {eps}", str(targets), *robust, *backwards])
