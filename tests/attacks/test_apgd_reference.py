"""Our APGD against the reference package, example by example, from the same random starts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from support.nets import Small, train_small
from torch import Tensor

from transferbench.attacks import Keys, RowAttack, build, lockstep
from transferbench.attacks.apgd_ball import BallAPGD, checkpoint_windows
from transferbench.attacks.apgd_l1 import L1APGD
from transferbench.base.specifications import AttackSpec, Norm, ThreatModel
from transferbench.threats import LpBall

RADII: dict[Norm, str] = {"Linf": "0.06", "L2": "0.25", "L1": "0.9"}


@pytest.fixture(scope="module", params=[3, pytest.param(5, marks=pytest.mark.slow), 10])
def net(request: pytest.FixtureRequest) -> Small:
    return train_small(request.param, 60, 40).correct()


def noise_of(x: Tensor, norm: Norm, seed: int) -> Tensor:
    """What the reference draws first after seeding."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return 2 * torch.rand(x.shape) - 1 if norm == "Linf" else torch.randn(x.shape)


def start_from(attack: RowAttack, draw: Callable[[LpBall, Tensor, Keys], Tensor]) -> None:
    """Let the attack's random start use this noise."""
    if isinstance(attack, L1APGD):
        attack.draw = draw
    else:
        assert isinstance(attack, BallAPGD)
        attack.start_point = lambda ball, x, keys: ball.start_from_noise(x, draw(ball, x, keys))


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("id", ["apgd-ce", "apgd-t"])
def test_verdicts_are_the_references(net: Small, norm: Norm, id: str) -> None:
    classes = net.logits.shape[1]
    if id == "apgd-t" and classes < 4:
        reference = APGDAttack_targeted(net.model, n_target_classes=1, norm=norm, eps=0.1, device="cpu")
        with torch.random.fork_rng(), pytest.raises(IndexError):
            reference.perturb(net.x.clone(), net.y.clone())
        return
    eps, options = float(RADII[norm]), {"n_iter": 100, "seed": 3, "device": "cpu"}
    options |= {"norm": norm, "eps": eps, "use_largereps": norm == "L1"}
    with torch.random.fork_rng():
        if id == "apgd-ce":
            reference = APGDAttack(net.model, n_restarts=1, loss="ce", **options)
        else:
            reference = APGDAttack_targeted(net.model, n_target_classes=1, **options)
        theirs = reference.perturb(net.x.clone(), net.y.clone())
    with torch.no_grad():
        fooled = net.model(theirs).argmax(1) != net.y
    attack = build(AttackSpec.of(id), ThreatModel.parse(norm, RADII[norm]), classes)
    noise = noise_of(net.x, norm, 3)

    def draw(_: LpBall, x: Tensor, keys: Keys) -> Tensor:
        return noise

    start_from(attack, draw)
    keys = torch.zeros(len(net.x), dtype=torch.int64)
    ours = lockstep.maximise(attack, net.model, net.x, net.y, keys, net.logits)
    assert 0 < int(fooled.sum()) < len(fooled), "a test on examples that all fall or all stand shows nothing"
    assert torch.equal(ours.fooled, fooled)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_whole_trajectory_is_the_references(small: Small, norm: Norm) -> None:
    """Best points and losses after 30 iterations agree bit for bit, not only the verdicts."""
    net = small.correct()
    attack = build(AttackSpec.of("apgd-ce", n_iter=30), ThreatModel.parse(norm, RADII[norm]), 10)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        reference = APGDAttack(net.model, n_iter=30, norm=norm, eps=float(RADII[norm]), device=str(net.x.device))
        reference.init_hyperparam(net.x)
        best, _, _, _ = reference.attack_single_run(net.x, net.y)
    noise = noise_of(net.x, norm, 3).to(net.x.device)
    start_from(attack, lambda *_: noise)
    ours = lockstep.maximise(attack, net.model, net.x, net.y, torch.zeros_like(net.ids), net.logits)
    assert torch.equal(ours.best, best)


def test_checkpoints_are_those_of_the_paper() -> None:
    windows = [window for window in checkpoint_windows(100) if window]
    assert windows == [22, 19, 16, 13, 10, 7, 6, 6]
    assert [at for at, window in enumerate(checkpoint_windows(10)) if window] == [2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_targets_are_ranked_by_the_clean_prediction(small: Small) -> None:
    attack = build(AttackSpec.of("apgd-t", targets=3), ThreatModel.parse("Linf", "0.1"), 10)
    logits = small.logits
    for attempt in range(3):
        tries = torch.full((len(logits),), attempt, device=logits.device)
        target = attack.targets(logits, Keys(tries, tries))  # type: ignore[attr-defined]
        assert torch.equal(target, logits.argsort(1)[:, -2 - attempt])
    assert build(AttackSpec.of("apgd-t"), ThreatModel.parse("Linf", "0.1"), 4).tries == 3
    assert build(AttackSpec.of("apgd-t"), ThreatModel.parse("L1", "1"), 10).tries == 5
