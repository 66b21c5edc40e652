"""MALT's order is the order of distances where the network is linear."""

from __future__ import annotations

import pytest
import torch
from support.nets import Small
from torch import nn

import transferbench
from transferbench.attacks import losses
from transferbench.base.errors import InputError
from transferbench.engine.target_order import malt_scores
from transferbench.threats import L1Ball, L2Ball, LinfBall, LpBall

DUALS = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}


@pytest.mark.parametrize("ball", [LinfBall.parse("0.1"), L2Ball.parse("0.5"), L1Ball.parse("2")])
def test_targets_of_a_linear_network_come_by_their_distance(ball: LpBall) -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
    weight = torch.randn(12, 64, generator=generator) * torch.logspace(-1, 1, 12)[:, None]
    network[1].weight.data, network[1].bias.data = weight, torch.randn(12, generator=generator)
    x = torch.rand(20, 1, 8, 8, generator=generator)
    logits = network(x)
    y = logits.argmax(1)
    scores = malt_scores(network, ball, x, y, floor=16)
    margins = logits.gather(1, y[:, None]) - logits
    lengths = torch.linalg.vector_norm(weight[y][:, None] - weight[None], ord=DUALS[ball.name], dim=2)
    distances = (margins / lengths).scatter(1, y[:, None], -1.0)
    assert torch.equal(scores.argsort(1, descending=True), distances.argsort(1))
    assert not torch.equal(scores.argsort(1, descending=True), logits.argsort(1, descending=True))
    assert torch.equal(losses.ranked_target(scores, torch.zeros(20, dtype=torch.int64)), y)


@pytest.mark.cpu_only  # exact passes: a GPU's algorithms differ with the batch size
def test_the_order_costs_its_passes_and_depends_on_no_batch(small: Small) -> None:
    reports = [
        transferbench.evaluate(
            small.model, small.x, small.y, {"L2": "0.4"}, attacks=attacks, batch_size=batch, n_iter=8
        )
        for attacks, batch in (
            ("apgd-ce,apgd-t:targets=2:order=malt", None),
            ("apgd-ce,apgd-t:targets=2:order=malt", 7),
            ("apgd-ce,apgd-t:targets=2", None),
        )
    ]
    malt, batched, plain = (report.cost.by_attack for report in reports)
    assert malt is not None
    assert batched is not None
    assert plain is not None
    assert reports[0].verdicts.equals(reports[1].verdicts)
    assert malt.forwards.tolist() == batched.forwards.tolist()
    assert malt.backwards.tolist() == batched.backwards.tolist()
    reached = malt.standing[0]
    assert reached > 0
    # A pass forward and 9 backward for every example that reaches the attack, of ten classes.
    assert malt.backwards[1] - malt.forwards[1] == 8 * reached
    assert plain.backwards[1] == plain.forwards[1]


def test_another_order_is_refused(small: Small) -> None:
    with pytest.raises(InputError, match="logits, malt"):
        transferbench.evaluate(small.model, small.x, small.y, {"L2": "0.4"}, attacks="apgd-t:order=random")
