"""Intervals, tests and ranks against scipy and statsmodels, and their properties."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from transferbench.leaderboard import statistics

BITS = st.lists(st.lists(st.booleans(), min_size=30, max_size=30), min_size=2, max_size=6)


@given(st.integers(1, 500), st.data())
def test_wilson_is_statsmodels(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = statistics.wilson(successes, n)
    theirs = proportion_confint(successes, n, method="wilson")
    assert (low, high) == pytest.approx(theirs, abs=1e-9)
    assert low <= successes / n <= high


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_mcnemar_is_statsmodels(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    table = np.zeros((2, 2))
    for a, b in pairs:
        table[int(a), int(b)] += 1
    expected = their_mcnemar(table, exact=True).pvalue if table[0, 1] + table[1, 0] else 1.0
    assert statistics.mcnemar(first, second) == pytest.approx(expected, abs=1e-12)
    assert statistics.mcnemar(first, second) == statistics.mcnemar(second, first)


@pytest.mark.slow
@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    assert statistics.holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(BITS, st.randoms())
def test_ranks_do_not_depend_on_the_order_of_rows(rows: list[list[bool]], random: object) -> None:
    ranks = statistics.ranks(rows)
    assert min(ranks) == 1
    assert all(1 <= rank <= len(rows) for rank in ranks)
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert statistics.ranks([rows[place] for place in order]) == [ranks[place] for place in order]


def test_ties_share_a_rank_and_clear_differences_do_not() -> None:
    all_robust, none_robust = [True] * 100, [False] * 100
    assert statistics.ranks([all_robust, none_robust, all_robust]) == [1, 3, 1]
    assert statistics.ranks([[True] * 52 + [False] * 48, [True] * 50 + [False] * 50]) == [1, 1]


SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2)


Interval = Callable[[int, int, int], tuple[float, float, float]]


def ends(n: int, interval: Interval) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper ends by the two discordant counts, up to the largest that the shares make likely."""
    most = min(n, int(binom.ppf(1 - 1e-10, n, max(SHARES)))) + 1
    found = np.full((2, most, most), np.nan)
    for a in range(most):
        for b in range(min(most, n + 1 - a)):
            found[:, a, b] = interval(a, b, n)[1:]
    return found[0], found[1]


def coverage(p: float, q: float, n: int, low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """The probability that the interval holds p - q, over all outcomes of the trinomial but its last 1e-9."""
    counts = np.arange(len(low))
    outcomes = binom.pmf(counts, n, p)[:, None] * binom.pmf(counts, (n - counts)[:, None], q / (1 - p))
    assert outcomes.sum() > 1 - 1e-8
    return float(outcomes[(low - 1e-12 <= p - q) & (p - q <= high + 1e-12)].sum())


@pytest.mark.parametrize("n", [50, 200, 1000])
def test_the_interval_of_a_paired_difference_covers_it(n: int) -> None:
    """Exact, by enumeration: at least 93 % everywhere, and at most 97 % where 20 discordant examples are expected."""
    both = ends(n, statistics.paired_difference)
    for p, q in product(SHARES, repeat=2):
        covered = coverage(p, q, n, *both)
        assert covered >= 0.93, (p, q)
        assert covered <= 0.97 or n * (p + q) < 20, (p, q)


def test_the_coverage_that_the_docstring_names() -> None:
    assert coverage(0.005, 0.175, 50, *ends(50, statistics.paired_difference)) == pytest.approx(0.9425, abs=5e-5)
    assert coverage(0.04, 0.065, 200, *ends(200, statistics.paired_difference)) == pytest.approx(0.9614, abs=5e-5)


def test_a_wald_interval_would_not_pass() -> None:
    """The measure of coverage is able to fail: Wald's interval without the two examples."""

    def wald(a: int, b: int, n: int) -> tuple[float, float, float]:
        d = (a - b) / n
        spread = statistics.Z_95 * np.sqrt(max(0.0, (a + b) / n - d * d) / n)
        return d, d - spread, d + spread

    assert coverage(0.005, 0.02, 50, *ends(50, wald)) < 0.8
