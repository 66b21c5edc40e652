from __future__ import annotations

from typing import Any

import pytest
import torch
from support.nets import Small
from torch import Tensor

from transferbench import threats
from transferbench.base.errors import InputError
from transferbench.base.specifications import NORMS, AttackSpec, Chain, ThreatModel
from transferbench.engine import selftest
from transferbench.engine.verdicts import Examples
from transferbench.threats import LpBall

RADII = {"Linf": "0.1", "L2": "0.5", "L1": "2"}
CHAINS = [
    Chain(norm, ThreatModel.parse(norm, RADII[norm]), (AttackSpec.of("apgd-ce"), AttackSpec.of("apgd-t", targets=2)))
    for norm in NORMS
]


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.name)
def test_the_planted_region_is_where_it_should_be(small: Small, chain: Chain) -> None:
    net = small.correct()
    wrapped = selftest.plant(net.model, net.x, net.y, net.ids, chain.threat)
    ball = threats.build(chain.threat)
    assert isinstance(ball, LpBall)
    delta = selftest._offsets(ball, net.x, net.ids, 0)
    planted = net.x + delta
    assert float(planted.min()) >= 0
    assert float(planted.max()) <= 1
    assert torch.allclose(ball.distance(net.x, planted), torch.tensor(0.9 * ball.radius).double(), rtol=1e-4)
    with torch.no_grad():
        assert bool((wrapped(planted).argmax(1) != net.y).all()), "the region is there"
        assert bool((wrapped(net.x).argmax(1) == net.y).all())
        for share in (0.5, 0.9):
            assert bool((wrapped(net.x + share * delta).argmax(1) == net.y).all()), "and it is narrow"
        noise = ball.random_start(net.x, net.ids)
        assert bool((wrapped(noise).argmax(1) == net.y).all()), "a random point does not find it"


def test_the_attacks_find_what_is_certainly_there(small: Small) -> None:
    got = selftest.selftest(small.model, Examples(small.x, small.y, small.ids), CHAINS)
    assert got.planted == len(small.correct().x)
    assert got.passed, got


class _Reversed(torch.autograd.Function):
    """Identity whose gradient has the wrong sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return -gradient


def test_a_victim_whose_gradients_lie_fails_it(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test must be able to fail. It also shows that no copy restores gradients the model does not give."""
    honest = selftest._PlantedVictim.forward
    monkeypatch.setattr(selftest._PlantedVictim, "forward", lambda self, x: honest(self, _Reversed.apply(x)))
    got = selftest.selftest(small.model, Examples(small.x, small.y, small.ids), CHAINS[:1])
    assert not got.passed


def test_regions_are_planted_in_balls_only(small: Small) -> None:
    threat = ThreatModel.parse("renofeation", "0.1")
    with pytest.raises(InputError, match="ball of a norm, not in renofeation"):
        selftest.plant(small.model, small.x, small.y, small.ids, threat)


def test_nothing_to_plant_is_refused(small: Small) -> None:
    wrong = (small.logits.argmax(1) + 1) % 10
    with pytest.raises(InputError, match="none of the examples"):
        selftest.selftest(small.model, Examples(small.x, wrong, small.ids), CHAINS)
