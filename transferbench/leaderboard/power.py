"""How many examples a comparison of two victims needs: power of the exact McNemar test, before anything is measured.

Power is a function of an assumption: the *discordance*, the share of the examples on which the two victims' verdicts
differ, and the *difference* of their rates. Both are chosen beforehand; power at the effect that a run has shown is a
function of its p-value and says nothing more (Hoenig and Heisey 2001), so nothing here reads a run.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr
from scipy.stats import binom

from transferbench.base.errors import InputError
from transferbench.leaderboard.statistics import paired_difference

LEVEL = 0.05
POWER = 0.8
MOST = 10_000_000
"""Examples, at most."""
DISCORDANCE = 0.2
"""The share of examples on which two victims' verdicts differ where nothing else is assumed: the median, in the union,
of the pairs of a seed on the committed board of letters-to-digits."""
_NEGLIGIBLE = 1e-12


def _check(difference: float, discordance: float, level: float) -> None:
    if not 0 < discordance <= 1:
        raise InputError(f"a discordance of {100 * discordance:g} points: it lies above 0 and is at most 100")
    if not 0 < difference <= discordance:
        raise InputError(
            f"a difference of {100 * difference:g} points: it lies above 0 and is at most the discordance, "
            f"{100 * discordance:g} points"
        )
    if not 0 < level < 1:
        raise InputError(f"a level of {level:g}: it lies between 0 and 1")


def _check_power(power: float) -> None:
    if not 0 < power < 1:
        raise InputError(f"a power of {power:g}: it lies between 0 and 1")


def mcnemar_power(n: int, difference: float, discordance: float, level: float = LEVEL) -> float:
    """The probability that the two-sided exact McNemar test of n examples has p < level.

    `difference` and `discordance` are shares, as everywhere in this file. InputError where they are not 0 < difference
    <= discordance <= 1.
    """
    _check(difference, discordance, level)
    if not 1 <= n <= MOST:
        raise InputError(f"n={n}: ask for 1 to {MOST} examples")
    low, high = binom.ppf(_NEGLIGIBLE, n, discordance), binom.ppf(1 - _NEGLIGIBLE, n, discordance)
    discordant = np.arange(int(low), int(high) + 1)
    critical, share = _critical(discordant, level), (1 + difference / discordance) / 2
    possible = critical >= 0
    discordant, critical = discordant[possible], critical[possible]
    rejected = bdtr(critical, discordant, share) + bdtr(critical, discordant, 1 - share)
    return float(np.minimum(1.0, rejected) @ binom.pmf(discordant, n, discordance))


def _critical(discordant: NDArray[np.int_], level: float) -> NDArray[np.int_]:
    """For each number of discordant examples, the largest count of the smaller side at which p < level; -1: none."""
    found: NDArray[np.int_] = binom.ppf(level / 2, discordant, 0.5).astype(np.int64)
    # ppf is the smallest count with at least that probability: the one wanted lies one below, or further by rounding.
    while (high := (found >= 0) & (2 * bdtr(np.maximum(found, 0), discordant, 0.5) >= level)).any():
        found = found - high
    return found


def examples_needed(difference: float, discordance: float, power: float = POWER, level: float = LEVEL) -> int:
    """The smallest n from which on the power is never below `power`. It is not monotone in n: the test is discrete.

    InputError where more than MOST examples would be needed.
    """
    _check(difference, discordance, level)
    _check_power(power)

    def suffices(n: int) -> bool:
        return mcnemar_power(n, difference, discordance, level) >= power

    high = 1
    while not suffices(high):
        high *= 2
        if high > MOST:
            raise InputError(f"more than {MOST} examples would be needed")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    # One outcome's probability is what the power loses between two critical counts. It regains that within about
    # discordance / difference discordant examples; four times as many are looked at.
    beyond = high + math.ceil(10 / discordance + 4 / difference)
    for n in range(min(beyond, MOST), high, -1):
        if not suffices(n):
            return n + 1
    return high


def detectable_difference(n: int, discordance: float, power: float = POWER, level: float = LEVEL) -> float | None:
    """The smallest difference, to .0001, that n examples detect with this power; None where even the largest possible
    one, the discordance, is not."""
    _check_power(power)
    steps = math.floor(discordance * 10_000 + 1e-9)
    if not steps or mcnemar_power(n, steps / 10_000, discordance, level) < power:
        return None
    low, high = 0, steps
    while high - low > 1:
        middle = (low + high) // 2
        enough = mcnemar_power(n, middle / 10_000, discordance, level) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high / 10_000


def half_width(n: int, difference: float, discordance: float) -> float:
    """Half the length of the 95 % interval of a paired difference, where the counts are the expected ones."""
    only = n * (discordance + difference) / 2, n * (discordance - difference) / 2
    _, low, high = paired_difference(*only, n)
    return (high - low) / 2


def resolution(n: int, discordance: float = DISCORDANCE) -> str:
    """One line: how exact a comparison on n examples is, with what it assumes."""
    found = detectable_difference(n, discordance)
    detected = "no difference is" if found is None else f"one of {100 * found:.1f} points or more is"
    return (
        f"n = {n}: assuming that two victims' verdicts differ on {100 * discordance:g} % of the examples (plan-n takes "
        f"other assumptions), a paired difference has a 95 % interval of about "
        f"+-{100 * half_width(n, 0.0, discordance):.1f} points, and {detected} found with {100 * POWER:g} % power "
        f"(exact McNemar test of one pair and one seed, p < {LEVEL:g})"
    )
