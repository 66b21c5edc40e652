"""Schedules by name, of the learning rate and of the radius in adversarial training.

Each is the factor at a step, a pure function, so that resume is exact.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import cache
from typing import Annotated, Literal

from pydantic import AfterValidator

NAMES = ("constant", "step", "piecewise", "piecewise-constant", "thirds", "piecewise-ft", "late", "cosine", "onecycle")
_LENGTHS = re.compile(r"piecewise((?:-(?:\d+(?:\.\d+)?|\.\d+))+)")


def _known(name: str) -> str:
    lengths = _LENGTHS.fullmatch(name)
    if name not in NAMES and (lengths is None or not all(float(one) for one in lengths[1][1:].split("-"))):
        raise ValueError(
            f"a schedule is one of {', '.join(NAMES)}, or piecewise-<length>-<length>-... with lengths above 0"
        )
    return name


Schedule = Annotated[str, AfterValidator(_known)]
RadiusSchedule = Literal["constant", "linear", "hinge"]


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """What the base rate is multiplied with at `step` of 0..steps-1.

    constant  1
    step      1, .1 from 1/2, .01 from 3/4 (robust-finetuning's `piecewise`, which is another name for it)
    piecewise-constant  the same, a step number of 1/2 or 3/4 still belonging to the earlier rate (TensorFlow's
              `piecewise_constant` at 40000 and 60000 of 80000: Madry's challenge, Free AT, IGAM)
    thirds    1, .1, .01 (robust-finetuning's `piecewise-ft`, another name for it; E-AT's fine-tuning)
    piecewise-<a>-<b>-<c>  1, .1 after a share of a / (a + b + c), .01 after (a + b) / (a + b + c), and so on for any
              number of lengths (robust-finetuning)
    late      1, .1 after 7/8 (`piecewise-70-10`, E-AT from scratch)
    cosine    from 1 to 0 (Renofeation)
    onecycle  cosine from .04 up to 1 over the first 30 %, then down to 4e-6 (torch's OneCycleLR defaults)

    robust-finetuning's time is (step + 1) / steps, the steps done when this one ends: the last step of the first third
    has the second rate, and those with lengths, whose code compares with > where the others have >=, begin after their
    share. Shares are compared exactly, where the code compares rounded numbers. Its `superconverge` fails in that code.
    """
    done, end = step / steps, step + 1
    if schedule == "constant":
        return 1.0
    if schedule in ("step", "piecewise"):
        return 1.0 if 2 * end < steps else 0.1 if 4 * end < 3 * steps else 0.01
    if schedule == "piecewise-constant":
        return 1.0 if 2 * step <= steps else 0.1 if 4 * step <= 3 * steps else 0.01
    if schedule in ("thirds", "piecewise-ft"):
        return 1.0 if 3 * end < steps else 0.1 if 3 * end < 2 * steps else 0.01
    if schedule == "late":
        return 1.0 if 8 * end <= 7 * steps else 0.1
    if schedule.startswith("piecewise-"):
        passed = sum(Fraction(end, steps) > share for share in _shares(schedule))
        return float(1 / 10.0**passed)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    peak = 0.3 * steps - 1
    if step <= peak:
        return _cosine(1 / 25, 1.0, step / peak)
    return _cosine(1.0, 1 / 25e4, (step - peak) / (steps - 1 - peak))


def warmed(schedule: Schedule, step: int, steps: int, share: float) -> float:
    """`factor` behind a warm-up: from 0 up to 1 by equal steps, over a share of the steps (in [0, 1))."""
    warm = int(share * steps)
    return (step + 1) / warm if step < warm else factor(schedule, step - warm, steps - warm)


def radius_factor(schedule: RadiusSchedule, done: Fraction, start: Fraction, end: Fraction) -> Fraction:
    """The share of the radius when a share `done` of the steps is done (arXiv:2509.23325).

    constant  1
    linear    from 0 up to 1 at `end`, then 1
    hinge     0 until `start`, then up to 1 at `end`, then 1
    """
    if schedule == "constant" or done >= end:
        return Fraction(1)
    begin = Fraction(0) if schedule == "linear" else start
    return max((done - begin) / (end - begin), Fraction(0))


@cache
def _shares(schedule: str) -> tuple[Fraction, ...]:
    """The shares of the steps at which the pieces but the last end."""
    lengths = [Fraction(length) for length in schedule.split("-")[1:]]
    return tuple(sum(lengths[:count], Fraction()) / sum(lengths) for count in range(1, len(lengths)))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
