"""Intervals, tests and ranks on per-example verdict bits."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations, pairwise
from math import sqrt
from statistics import NormalDist

import numpy as np
from scipy.special import bdtr

from transferbench.base.bits import number_of

Z_95 = NormalDist().inv_cdf(0.975)


@cache
def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a rate, as shares. n must be at least 1."""
    low, high = wilson_of_share(successes / n, n)
    # Exact where rounding would put an end on the wrong side of the rate.
    return 0.0 if successes == 0 else low, 1.0 if successes == n else high


def wilson_of_share(share: float, n: float) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share of n independent units; n need not be whole (an effective number)."""
    centre, spread = share + Z_95**2 / (2 * n), Z_95 * sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n))
    low, high = ((centre + side * spread) / (1 + Z_95**2 / n) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)


def paired_difference(only_first: float, only_second: float, n: float) -> tuple[float, float, float]:
    """(difference, lower end, upper end): the first rate less the second on the same n examples, as shares.

    `only_first` and `only_second` count the examples of one alone; they need not be whole (an effective number of
    examples, leaderboard/seeds.py). The 95 % interval is Bonett and Price's for paired proportions (2012): Wald's with
    one more example in each of the two cells. n must be at least 1.

    Its coverage, by enumerating all outcomes, for n = 50, 200, 1000 and both discordant shares from .005 to .2 in steps
    of .005 (.01 above .03 at n = 1000): at least 94.25 % (n = 50, shares .005 and .175), 94.84 % and 94.95 %, and at
    most 96.14 % where 20 or more discordant examples are expected; with fewer it is up to 100 %. Tango's score interval
    (1998) covers at least 93.23 % there. Newcombe's method 10 (1998) covers 92.11 % at n = 50, shares .005 and .05 and
    as many of the others right for both as for none; it also needs the number of those.
    """
    first, second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    spread = Z_95 * sqrt((first + second - (first - second) ** 2) / (n + 2))
    low, high = max(-1.0, first - second - spread), min(1.0, first - second + spread)
    difference = (only_first - only_second) / n
    return difference, min(low, difference), max(high, difference)


def expected(points: Sequence[tuple[Fraction, float]]) -> float:
    """The mean of a rate over the radii from the first to the last point, by the trapezoid rule.

    Expected robustness (arXiv:2509.23325) where the first point is clean accuracy at radius 0. Two points at least.
    """
    area = sum(float(right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in pairwise(points))
    return area / float(points[-1][0] - points[0][0])


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Two-sided exact McNemar p: whether two victims differ on the same examples. 1 where they never differ."""
    return _mcnemar([(number_of(first), number_of(second))])[0]


def _mcnemar(pairs: Sequence[tuple[int, int]]) -> list[float]:
    """`mcnemar` of every pair of bits as whole numbers: a board of a thousand rows has hundreds of thousands."""
    counts = [((a & ~b).bit_count(), (b & ~a).bit_count()) for a, b in pairs]
    only_first, only_second = np.array(counts, dtype=np.int64).reshape(-1, 2).T
    # At 1/2 the binomial distribution is symmetric: both tails together are twice the smaller one.
    smaller = bdtr(np.minimum(only_first, only_second), only_first + only_second, 0.5)
    p_values: list[float] = np.minimum(1.0, 2 * smaller).tolist()
    return p_values


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
    numbers = [number_of(bits) for bits in verdicts]
    pairs = list(combinations(range(len(numbers)), 2))
    adjusted = holm(_mcnemar([(numbers[a], numbers[b]) for a, b in pairs]))
    sizes, beaten = [number.bit_count() for number in numbers], [0] * len(numbers)
    for (a, b), p in zip(pairs, adjusted, strict=True):
        if p < level:
            beaten[b if sizes[a] > sizes[b] else a] += 1
    return [1 + count for count in beaten]
