"""Suspicions speak of every attacked row, in whatever order the data come."""

from __future__ import annotations

import pytest
import torch
from support.nets import Around, Small
from torch import Tensor, nn

import transferbench


class OneClass(Around):
    """The gradient exists for images that are predicted as class 0 only."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        return torch.where(z.argmax(1, keepdim=True) == 0, z, z.detach() + 0 * z)


def attacked(model: nn.Module, x: Tensor, y: Tensor, eps: str = "0.06") -> transferbench.Report:
    return transferbench.evaluate(model, x, y, {"Linf": eps}, attacks=("apgd-ce",), n_iter=5)


@pytest.mark.parametrize("sort", [True, False])
def test_missing_gradients_are_counted_in_sorted_data_too(small: Small, sort: bool) -> None:
    order = small.y.argsort(stable=True) if sort else torch.arange(len(small.y))
    x, y = small.x[order], small.y[order]
    correct = small.model(x).argmax(1) == y
    report = attacked(OneClass(small.model), x, y)
    assert "zero-gradient" in report.flags
    assert report.flag_rows["zero-gradient"] == int((correct & (y != 0)).sum())


def test_large_logits_underflow_the_cross_entropy_and_not_the_margin(small: Small) -> None:
    report = attacked(nn.Sequential(small.model, Times(1e4)).eval(), small.x, small.y)
    assert "cross-entropy-underflow" in report.flags
    assert "zero-gradient" not in report.flags
    margins = small.logits.topk(2).values
    sure = ((margins[:, 0] - margins[:, 1]) * 1e4 > 105) & (small.logits.argmax(1) == small.y)
    assert report.flag_rows["cross-entropy-underflow"] == int(sure.sum())
    assert not {"cross-entropy-underflow", "zero-gradient"} & {*attacked(small.model, small.x, small.y).flags}


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class SometimesProbabilities(Around):
    """Probabilities for dark images only."""

    def __init__(self, net: nn.Module, threshold: float) -> None:
        super().__init__(net)
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        return torch.where(x.flatten(1).mean(1)[:, None] < self.threshold, z.softmax(1), z)


def test_probabilities_are_counted(small: Small) -> None:
    order = small.x.flatten(1).mean(1).argsort(descending=True)
    x, y = small.x[order], small.y[order]
    threshold = float(x.flatten(1).mean(1)[40])
    report = attacked(SometimesProbabilities(small.model, threshold), x, y)
    dark = x.flatten(1).mean(1) < threshold
    assert report.flag_rows["softmax-output"] == int((dark & (small.model(x).argmax(1) == y)).sum())


class Tiring(Around):
    """Answers alike for as many calls as pre-flight makes, and otherwise later."""

    def forward(self, x: Tensor) -> Tensor:
        CALLS.append(len(x))
        return self.net(x) * (1 if len(CALLS) < 40 else 0.5)


CALLS: list[int] = []
"""Outside of the model, so that its copies count as well."""


def test_a_model_that_changes_during_the_attack_is_noticed_after_it(small: Small) -> None:
    report = transferbench.evaluate(Tiring(small.model), small.x, small.y, {"L2": 0.1}, attacks=("apgd-ce",))
    assert "state-between-calls" in report.flags


class Optimising(Around):
    """Takes a gradient step of its own on images that are not clean ones."""

    def __init__(self, net: nn.Module, clean: Tensor) -> None:
        super().__init__(net)
        self.clean = clean

    def forward(self, x: Tensor) -> Tensor:
        if torch.cdist(x.flatten(1), self.clean.flatten(1)).amin(1).max() > 0.05:
            with torch.enable_grad():
                own = x.detach().clone().requires_grad_()
                torch.autograd.grad(self.net(own).sum(), own)
        return self.net(x)


def test_optimisation_at_test_time_is_noticed_at_the_end_points_too(small: Small) -> None:
    grid = torch.cat([small.x * (1 - k / 32) for k in range(17)] + [1 - small.x, small.x * 0.5, small.x * 0.25])
    report = attacked(Optimising(small.model, grid), small.x, small.y)
    assert "gradient-inside" in report.flags
