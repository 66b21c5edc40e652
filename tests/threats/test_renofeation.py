"""Renofeation's own threat: its normalised space and box, against a naive loop and the verification."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from transferbench import attacks
from transferbench.attacks.source_attack import run_to_end
from transferbench.base.errors import FaultError, InputError
from transferbench.base.ids import RENOFEATION
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.engine.judge import check_admissible
from transferbench.results import verification
from transferbench.threats import LinfBall, RenofeationBox

MEAN, STD = (torch.tensor(part).view(1, 3, 1, 1) for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
THREAT = ThreatModel.parse(RENOFEATION, "0.1")


def images(n: int = 6) -> Tensor:
    """Some of them nearly white, some nearly black: where the evaluator's clipping differs from [0,1]."""
    x = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    x[0], x[1] = 0.9 + 0.1 * x[0], 0.02 * x[1]
    x[2, :, 0], x[2, :, 1] = 1.0, 0.0
    return x


class Features(nn.Module):
    """Normalises and projects: eight features that no ReLU makes flat."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn(8, 75, generator=torch.Generator().manual_seed(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(((x - MEAN) / STD).flatten(1) @ self.weight.T / 9)


class Penultimate:
    """The features as a source has them."""

    def __call__(self, x: Tensor, *names: str, **_: object) -> dict[str, Tensor]:
        return dict.fromkeys(names, Features()(x))

    def layers(self, *names: str) -> tuple[str, ...]:
        return names


def naive(x: Tensor, start: Tensor, neuron: int, steps: int) -> Tensor:
    """The loop of Renofeation's evaluator as published: everything normalised, delta clipped twice."""
    network, u = Features(), (x - MEAN) / STD
    delta = (start - MEAN) / STD - u
    for _ in range(steps):
        point = (u + delta).requires_grad_()
        output = torch.tanh(point.flatten(1) @ network.weight.T / 9)
        others = torch.cat([output[:, :neuron], output[:, neuron + 1 :]], 1)
        loss = -((output[:, neuron] - 1000) ** 2 + 0.1 * others.square().mean(1)).mean()
        (gradient,) = torch.autograd.grad(loss, point)
        delta = (delta + 0.01 * gradient.sign()).clamp(-0.1, 0.1)
        delta = (u + delta).clamp(-2.2, 2.2) - u
    return (u + delta) * STD + MEAN


def test_the_attack_is_the_evaluators_loop() -> None:
    x = images()
    attack: Any = attacks.build(AttackSpec.of("pretrained-neuron", neurons=2, n_iter=12), THREAT, 10)
    keys = torch.arange(6)
    given, source = attacks.Keys(keys, torch.ones_like(keys)), Penultimate()
    state = attack.start(x, source, given)
    found = run_to_end(attack, source, attack.start(x, source, given))
    # Signs of gradients are equal but where one is a rounding away from 0.
    apart = (found - naive(x, state["x"], 1, 12)).abs()
    assert float((apart < 1e-5).float().mean()) > 0.995
    assert float(LinfBall.parse("0.1").distance(x, found)[0]) > 0.1 * 0.229, "near-white pixels go further than eps"
    assert float(found.min()) < 0, "and dark ones leave [0,1]"


def test_its_noise_is_in_the_same_ball() -> None:
    x = images()
    attack: Any = attacks.build(AttackSpec.of("random-sign", draws=2), THREAT, 10)
    state = attack.start(x, Penultimate(), attacks.Keys(torch.arange(6), torch.zeros(6)))
    moved = ((state["x"] - x) / STD)[3:]
    inside = ((x[3:] - MEAN) / STD).abs() < 2.0
    assert torch.allclose(moved[inside].abs(), torch.tensor(0.1), atol=1e-5)
    check_admissible(THREAT, x, state["x"], torch.arange(6))


@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 0.999, 1.001, 1.2]))
def test_judge_and_verify_draw_the_same_line(seed: int, share: float) -> None:
    """A point at a share of the way to the bounds is in where the share is at most 1, for both."""
    x = images()
    low, high = RenofeationBox.parse("0.1").bounds(x)
    side = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    bound = torch.where(side, low, high)
    start = x.clamp(low, high)
    points = start + share * (bound - start)
    ids = torch.arange(6)
    if share <= 1:
        distances = check_admissible(THREAT, x, points, ids)
        again = verification.admissible("w", RENOFEATION, "0.1", x.numpy(), points.numpy())
        assert np.allclose(distances.numpy(), again)
        assert torch.equal(distances, LinfBall.parse("0.1").distance(x, points)), "the true distance in [0,1] pixels"
        return
    with pytest.raises(FaultError, match=r"outside the ball renofeation:0\.1"):
        check_admissible(THREAT, x, points, ids)
    with pytest.raises(verification.VerificationError, match="renofeation ball"):
        verification.admissible("w", RENOFEATION, "0.1", x.numpy(), points.numpy())


def test_it_is_for_source_only_attacks_on_colour_images() -> None:
    for id in ("apgd-ce", "apgd-t", "pgd", "fgsm", "source-pgd"):
        with pytest.raises(InputError, match=r"renofeation"):
            attacks.build(AttackSpec.of(id), THREAT, 10)
    attack: Any = attacks.build(AttackSpec.of("random-sign"), THREAT, 10)
    grey = torch.rand(2, 1, 8, 8)
    with pytest.raises(InputError, match="colour images"):
        attack.start(grey, Penultimate(), attacks.Keys(torch.arange(2), torch.zeros(2)))
