"""Learning-rate schedules by name: the factor on the base rate at a step, a pure function, so resume is exact."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "step", "piecewise-constant", "thirds", "late", "cosine", "onecycle"]


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """What the base rate is multiplied with at `step` of 0..steps-1.

    constant  1
    step      1, .1 from 1/2, .01 from 3/4 (robust-finetuning's `piecewise`)
    piecewise-constant  the same, a step number of 1/2 or 3/4 still belonging to the earlier rate (TensorFlow's
              `piecewise_constant` at 40000 and 60000 of 80000: Madry's challenge, Free AT, IGAM)
    thirds    1, .1, .01 (robust-finetuning's `piecewise-ft`, E-AT's fine-tuning)
    late      1, .1 after 7/8 (robust-finetuning's `piecewise-70-10`, E-AT from scratch)
    cosine    from 1 to 0 (Renofeation)
    onecycle  cosine from .04 up to 1 over the first 30 %, then down to 4e-6 (torch's OneCycleLR defaults)

    robust-finetuning's time is (step + 1) / steps, the steps done when this one ends: the last step of the first third
    has the second rate, and `late`, whose code compares with > where the others have >=, begins after its share.
    """
    done, end = step / steps, step + 1
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return 1.0 if 2 * end < steps else 0.1 if 4 * end < 3 * steps else 0.01
    if schedule == "piecewise-constant":
        return 1.0 if 2 * step <= steps else 0.1 if 4 * step <= 3 * steps else 0.01
    if schedule == "thirds":
        return 1.0 if 3 * end < steps else 0.1 if 3 * end < 2 * steps else 0.01
    if schedule == "late":
        return 1.0 if 8 * end <= 7 * steps else 0.1
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    peak = 0.3 * steps - 1
    if step <= peak:
        return _cosine(1 / 25, 1.0, step / peak)
    return _cosine(1.0, 1 / 25e4, (step - peak) / (steps - 1 - peak))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
