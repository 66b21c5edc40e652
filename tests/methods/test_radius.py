"""The radius of every adversarial method over a training: its schedule by another formula, and how far attacks go."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from support.nets import Small
from support.trainings import LAYERS, SHORT, same, settings, state_of

from transferbench import data, methods
from transferbench.base import keyed_random, registry, schedules
from transferbench.base.errors import InputError
from transferbench.methods import AdversarialMethod, Batch, Network, stated
from transferbench.models import networks
from transferbench.training import loop

ADVERSARIAL = [
    id
    for id, entry in registry.entries("methods").items()
    if not registry.preset_of(entry) and isinstance(methods.build(id, {}), AdversarialMethod)
]


@pytest.fixture
def source(small: Small) -> Network:
    return Network(small.model, LAYERS)


def student_of(id: str, source: Network, given: dict[str, Any]) -> tuple[Any, Network]:
    method = methods.build(id, {**settings(id), **given})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = method.student(source, lambda: Network(*networks.build("small-resnet", 10)[:2]), 10)
    return method, student


def batch_of(step: int) -> Batch:
    digits = data.load("digits", "train").select(range(16))
    return Batch(digits.images, digits.labels, keyed_random.row_keys(1, digits.ids), step)


def farthest(id: str, method: Any, student: Network, source: Network, batch: Batch) -> float:
    """The largest distance, as a share of the radius, of what the network sees in the loss's training pass."""
    seen: list[torch.Tensor] = []
    hook = student.model.register_forward_pre_hook(lambda model, given: seen.append(given[0].detach().clone()))
    for _ in range(2 if id == "free" else 1):
        # Free training moves its perturbation with the gradient of the step before.
        sum(method.loss(student, source if method.needs_source else None, batch).values()).backward()
    hook.remove()
    eps = dict(zip(getattr(method.params, "l_norms", "Linf,L2,L1").split(","), _radii(method), strict=False))
    orders = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0}
    shares = []
    for x in seen:
        apart = (x - batch.x).double().flatten(1) if len(x) == len(batch.x) else torch.zeros(1, 1)
        # A point of several norms' attack lies in one of the balls.
        inside = [apart.norm(orders[norm], dim=1) / radius for norm, radius in eps.items()]
        shares.append(float(torch.stack(inside).amin(0).max()))
    return max(shares)


def _radii(method: Any) -> list[float]:
    text = getattr(method.params, "l_eps", None) or method.params.eps
    return [float(Fraction(one)) for one in text.split(",")]


@pytest.mark.parametrize("schedule", ["constant", "linear", "hinge"])
def test_schedules_have_their_values(schedule: Any) -> None:
    """By interpolation between the corners; 12 and 37 of 50 epochs are the paper's."""
    corners = {
        "constant": ([0.0, 50.0], [1.0, 1.0]),
        "linear": ([0.0, 37.0, 50.0], [0.0, 1.0, 1.0]),
        "hinge": ([0.0, 12.0, 37.0, 50.0], [0.0, 0.0, 1.0, 1.0]),
    }[schedule]
    for epoch in range(50):
        factor = schedules.radius_factor(schedule, Fraction(epoch, 50), Fraction("0.24"), Fraction("0.74"))
        assert float(factor) == pytest.approx(np.interp(epoch, *corners), abs=1e-12)


@pytest.mark.parametrize("id", ADVERSARIAL)
def test_attacks_go_as_far_as_the_schedule_lets_them(id: str, source: Network) -> None:
    given = {"steps": 100, "eps_schedule": "hinge", "eps_from": 0.2, "eps_to": 0.6}
    # By default its last third, on the head, attacks nothing.
    given |= {"probe": "adversarial"} if id == "fare" else {}
    for step, share in ((0, 0.0), (20, 0.0), (30, 0.25), (40, 0.5), (60, 1.0), (99, 1.0)):
        method, student = student_of(id, source, given)
        found = farthest(id, method, student, source, batch_of(step))
        assert found <= share + 1e-5
        assert found >= 0.4 * share, f"at step {step} the attack stays at {found} of the radius"


OWN = ("madry", "trades", "free", "eat", "msd")
"""Those whose attack is written in their own file; the others inherit it."""


@pytest.mark.parametrize("id", [id if id in OWN else pytest.param(id, marks=pytest.mark.slow) for id in ADVERSARIAL])
def test_the_constant_radius_is_the_default_and_changes_no_bit(id: str, source: Network) -> None:
    digits = data.load("digits", "train"), data.load("digits", "val")

    def weights(**given: Any) -> dict[str, torch.Tensor]:
        method = methods.build(id, {**settings(id), **given})
        fresh = lambda: Network(*networks.build("small-resnet", 10)[:2])  # noqa: E731
        return state_of(loop.fit(method, source, fresh, *digits).network)

    plain = weights()
    assert same(plain, weights(eps_schedule="constant", eps_from=0.1, eps_to=0.9))
    assert not same(plain, weights(eps_schedule="linear"))


def test_options_that_came_later_leave_names_of_finished_trainings_alone() -> None:
    assert not any(name.startswith("eps_") for name in stated(methods.build("madry", SHORT).params))
    assert stated(methods.build("madry", {**SHORT, "eps_schedule": "linear"}).params)["eps_schedule"] == "linear"
    assert "eps" in stated(methods.build("madry", SHORT).params)


def test_a_radius_that_shrinks_is_refused() -> None:
    with pytest.raises(InputError, match="eps_from"):
        methods.build("madry", {"eps_from": 0.8, "eps_schedule": "hinge"})
    with pytest.raises(InputError, match="eps_schedule"):
        methods.build("eat", {"eps_schedule": "cosine"})
    with pytest.raises(InputError, match="eps_schedule"):
        methods.build("finetune", {"eps_schedule": "linear"})
