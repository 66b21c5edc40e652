"""Intervals, tests and ranks on per-example verdict bits."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise
from math import sqrt
from statistics import NormalDist

from scipy.stats import binomtest

Z_95 = NormalDist().inv_cdf(0.975)


@cache
def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a rate, as shares. n must be at least 1."""
    interval = binomtest(successes, n).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def wilson_of_share(share: float, n: float) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share of n independent units; n need not be whole (an effective number)."""
    centre, spread = share + Z_95**2 / (2 * n), Z_95 * sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n))
    low, high = ((centre + side * spread) / (1 + Z_95**2 / n) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)


def expected(points: Sequence[tuple[Fraction, float]]) -> float:
    """The mean of a rate over the radii from the first to the last point, by the trapezoid rule.

    Expected robustness (arXiv:2509.23325) where the first point is clean accuracy at radius 0. Two points at least.
    """
    area = sum(float(right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in pairwise(points))
    return area / float(points[-1][0] - points[0][0])


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Two-sided exact McNemar p: whether two victims differ on the same examples. 1 where they never differ."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    discordant = only_first + only_second
    return 1.0 if discordant == 0 else float(binomtest(only_first, discordant, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: strong control of the family-wise error."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, running = [0.0] * len(p_values), 0.0
    for position, place in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - position) * p_values[place]))
        adjusted[place] = running
    return adjusted


def ranks(verdicts: Sequence[Sequence[bool]], level: float = 0.05) -> list[int]:
    """rank = 1 + the number of rows that beat the row: a higher rate, adjusted p below the level.

    One family is all pairs of the rows given. Rows that nobody beats share rank 1.
    """
    pairs = [(a, b) for a in range(len(verdicts)) for b in range(a + 1, len(verdicts))]
    adjusted = holm([mcnemar(verdicts[a], verdicts[b]) for a, b in pairs])
    beaten = [0] * len(verdicts)
    for (a, b), p in zip(pairs, adjusted, strict=True):
        if p < level:
            beaten[b if sum(verdicts[a]) > sum(verdicts[b]) else a] += 1
    return [1 + count for count in beaten]
