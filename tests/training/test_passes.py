"""Rows forward and backward of a training, against counts by hand; killed trainings count as unbroken ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.nets import Small
from support.trainings import LAYERS, StoppedError, StopsAfter, settings

from transferbench import data, methods
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.results import TrainingPasses
from transferbench.base.specifications import ThreatModel
from transferbench.methods import Network
from transferbench.models import networks
from transferbench.training import loop
from transferbench.training.monitor import RobustnessMonitor

ROWS = 8 * 32
"""Eight steps of 32 images."""


@pytest.fixture
def source(small: Small) -> Network:
    return Network(small.model, LAYERS)


def passes(
    id: str,
    source: Network,
    given: dict[str, Any],
    checkpoint: Checkpoint = NO_CHECKPOINT,
    monitor: RobustnessMonitor | None = None,
) -> TrainingPasses:
    method = methods.build(id, {**settings(id), "partial_batches": False, **given})
    fresh = lambda: Network(*networks.build("small-resnet", 10)[:2])  # noqa: E731
    splits = data.load("digits", "train"), data.load("digits", "val")
    trained = loop.fit(method, source, fresh, *splits, loop.FitOptions(checkpoint=checkpoint, monitor=monitor))
    assert trained.passes is not None
    assert not trained.network.model._forward_hooks
    return trained.passes


@pytest.mark.parametrize(
    ("id", "given", "forwards", "backwards"),
    [
        ("finetune", {}, 1, 1),
        ("probe", {}, 1, 1),
        ("free", {}, 1, 1),
        # k steps of PGD, and the loss at its end point.
        ("madry", {"k": 3}, 4, 4),
        ("madry", {"k": 3, "tune": "lora"}, 4, 4),
        ("roli", {"k": 2}, 3, 3),
        ("twins", {"k": 2}, 3, 3),
        ("twins", {"k": 2, "form": "trades"}, 4, 4),
        # The clean prediction that the attack leaves, k steps, and the loss on x and x'.
        ("trades", {"k": 2}, 5, 4),
        ("trades", {"k": 2, "bn": "dual"}, 5, 4),
        # The source's features.
        ("delta", {}, 2, 1),
        # Two thirds of 9 steps with the source's features, k steps and a loss on features alone; then the head.
        ("fare", {"k": 2, "steps": 9}, 6 / 8 * 4 + 3 / 8, 6 / 8 * 3 + 3 / 8),
        ("fare", {"k": 2, "steps": 9, "probe": "adversarial"}, 6 / 8 * 4 + 3 / 8 * 3, 6 / 8 * 3 + 3 / 8 * 3),
        # APGD looks at its first point and at one after every step.
        ("apgd-at", {"at_iter": 2}, 4, 4),
    ],
)
def test_passes_by_hand(id: str, given: dict[str, Any], forwards: float, backwards: float, source: Network) -> None:
    assert passes(id, source, given) == TrainingPasses(forwards * ROWS, backwards * ROWS)


def test_no_attack_costs_nothing_where_the_radius_is_zero(source: Network) -> None:
    """Hinge from half of the steps on: four clean ones and the one at which the radius begins."""
    given = {"k": 3, "eps_schedule": "hinge", "eps_from": 0.5, "eps_to": 0.9}
    assert passes("madry", source, given) == TrainingPasses(32 * (5 + 3 * 4), 32 * (5 + 3 * 4))


def test_further_networks_count(source: Network) -> None:
    """RAMP's copy, one pass a step more; IGAM's teacher."""
    plain, projected = (passes("ramp", source, {"gp_every": every, "at_iter": 1}) for every in (0, 2))
    assert projected.forwards - plain.forwards == ROWS
    assert plain.forwards == (2 * 2 + 2 + 3) * ROWS
    given = {"teacher_batch_size": 40, "teacher_trains": "all", "match_share": 0.125}
    short, longer = (passes("igam", source, {**given, "teacher_steps": steps}) for steps in (1, 3))
    assert longer.forwards - short.forwards == 2 * 40
    assert longer.backwards - short.backwards == 2 * 40


@pytest.mark.parametrize(("id", "given"), [("ramp", {"gp_every": 3, "at_iter": 1}), ("igam", {})])
def test_a_killed_training_counts_as_an_unbroken_one(
    id: str, given: dict[str, Any], source: Network, tmp_path: Path
) -> None:
    found = None
    while found is None:
        try:
            found = passes(id, source, given, StopsAfter(tmp_path / "c", 3))
        except StoppedError:
            continue
    assert found == passes(id, source, given)


def test_measuring_is_no_part_of_the_training(source: Network) -> None:
    splits = data.load("digits", "train"), data.load("digits", "val")
    monitor = RobustnessMonitor(splits[0].first(2), splits[1].first(2), [ThreatModel.parse("Linf", "0.1")], 1)
    assert passes("finetune", source, {}, monitor=monitor) == TrainingPasses(ROWS, ROWS)


def test_a_checkpoint_of_before_says_nothing(source: Network, tmp_path: Path) -> None:
    """Its training goes on, without a count."""

    class Older(StopsAfter):
        def load(self) -> dict[str, Any] | None:
            saved = super().load()
            return None if saved is None else {name: value for name, value in saved.items() if name != "passes"}

    with pytest.raises(StoppedError):
        passes("finetune", source, {}, Older(tmp_path / "c", 3))
    method = methods.build("finetune", {**settings("finetune"), "partial_batches": False})
    splits = data.load("digits", "train"), data.load("digits", "val")
    options = loop.FitOptions(checkpoint=Older(tmp_path / "c", 100))
    assert loop.fit(method, source, lambda: source, *splits, options).passes is None
