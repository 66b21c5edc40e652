"""Learning rates against the two codes' own formulas, written out again."""

from __future__ import annotations

import bisect

import pytest

from transferbench import methods
from transferbench.base import schedules
from transferbench.base.errors import InputError


def robust_finetuning(name: str, epochs: int, per_epoch: int) -> list[float]:
    """utils.get_lr_schedule at lr-max 1, called as train.py does: with epoch + (i + 1) / batches."""
    rates = []
    for epoch in range(epochs):
        for i in range(per_epoch):
            t = epoch + (i + 1) / per_epoch
            if name == "piecewise":
                rates.append(1.0 if t / epochs < 0.5 else 0.1 if t / epochs < 0.75 else 0.01)
            elif name == "piecewise-ft":
                rates.append(1.0 if t / epochs < 1.0 / 3.0 else 0.1 if t / epochs < 2.0 / 3.0 else 0.01)
            else:
                weights, passed = [float(part) for part in name.split("-")[1:]], 0
                while t / epochs > sum(weights[: passed + 1]) / sum(weights):
                    passed += 1
                rates.append(1.0 / 10.0**passed)
    return rates


@pytest.mark.parametrize(
    ("schedule", "theirs", "epochs", "per_epoch"),
    [
        ("thirds", "piecewise-ft", 3, 391),
        ("thirds", "piecewise-ft", 6, 10),
        ("step", "piecewise", 20, 12),
        ("late", "piecewise-70-10", 80, 391),
        ("late", "piecewise-70-10", 80, 7),
        *(
            (name, name, 80, 13)
            for name in ("piecewise", "piecewise-ft", "piecewise-70-10", "piecewise-40-20-15-5", "piecewise-0.5-1.5-.5")
        ),
        ("piecewise-3", "piecewise-3", 4, 5),
    ],
)
def test_robust_finetunings_rates(schedule: schedules.Schedule, theirs: str, epochs: int, per_epoch: int) -> None:
    expected = robust_finetuning(theirs, epochs, per_epoch)
    steps = epochs * per_epoch
    assert [schedules.factor(schedule, step, steps) for step in range(steps)] == expected


def test_the_suites_schedule_from_scratch_is_the_one_before_to_the_bit() -> None:
    steps = 31_280
    assert all(
        schedules.factor("piecewise-70-10", step, steps) == schedules.factor("late", step, steps)
        for step in range(steps)
    )


@pytest.mark.parametrize("name", ["piecewise-", "piecewise-0-1", "piecewise-a", "piecewise-1--2", "linear", ""])
def test_other_schedules_are_named(name: str) -> None:
    with pytest.raises(InputError, match=r"schedule.*piecewise-<length>"):
        methods.build("eat", {"schedule": name})
    assert methods.build("eat", {"schedule": "piecewise-70-10"}).params.schedule == "piecewise-70-10"


@pytest.mark.parametrize("steps", [80_000, 320_000])
def test_tensorflows_piecewise_constant(steps: int) -> None:
    """values[0] for global_step <= boundaries[0]: the first boundary that is not below the step number."""
    boundaries, values = [steps // 2, 3 * steps // 4], [1.0, 0.1, 0.01]
    for step in (0, *(at + more for at in boundaries for more in (-1, 0, 1, 2)), steps - 1):
        expected = values[bisect.bisect_left(boundaries, step)]
        assert schedules.factor("piecewise-constant", step, steps) == expected, step
