"""Power of the exact McNemar test: against enumeration of all outcomes, simulation, and a published approximation."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from scipy.stats import binomtest, multinomial, norm

from transferbench.base.errors import InputError
from transferbench.leaderboard.power import detectable_difference, examples_needed, half_width, mcnemar_power


@pytest.mark.parametrize(
    ("n", "difference", "discordance", "level"),
    [(12, 0.3, 0.5, 0.05), (30, 0.1, 0.3, 0.05), (30, 0.3, 0.3, 0.2), (25, 0.6, 1.0, 0.01), (4, 0.2, 0.2, 0.05)],
)
def test_the_power_is_that_of_all_outcomes(n: int, difference: float, discordance: float, level: float) -> None:
    shares = (discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance
    expected = sum(
        multinomial.pmf((a, b, n - a - b), n, shares)
        for a in range(n + 1)
        for b in range(n + 1 - a)
        if a + b and binomtest(a, a + b).pvalue < level
    )
    assert mcnemar_power(n, difference, discordance, level) == pytest.approx(expected, abs=1e-9)


def test_the_n_is_the_first_that_keeps_its_power() -> None:
    n = examples_needed(0.1, 0.3)
    powers = [mcnemar_power(k, 0.1, 0.3) for k in range(1, n + 200)]
    assert all(power >= 0.8 for power in powers[n - 1 :])
    assert powers[n - 2] < 0.8
    small = examples_needed(0.3, 0.35, power=0.9)
    powers = [mcnemar_power(k, 0.3, 0.35) for k in range(1, 200)]
    assert small == max(k for k, power in enumerate(powers, 1) if power < 0.9) + 1


def test_the_n_is_near_the_normal_approximation() -> None:
    """Connett, Smith and McHugh 1987; the exact test needs somewhat more."""
    for difference, discordance in ((0.05, 0.2), (0.02, 0.1), (0.1, 0.4)):
        z = norm.ppf(0.975) * sqrt(discordance) + norm.ppf(0.8) * sqrt(discordance - difference**2)
        approximate = (z / difference) ** 2
        assert approximate < examples_needed(difference, discordance) < 1.1 * approximate + 10


def test_the_difference_that_an_n_detects_is_the_inverse() -> None:
    found = detectable_difference(500, 0.2)
    assert found is not None
    assert mcnemar_power(500, found, 0.2) >= 0.8 > mcnemar_power(500, found - 0.0001, 0.2)
    assert detectable_difference(20, 0.2) is None
    assert detectable_difference(20, 0.00001) is None


def test_the_half_width_is_that_of_simulated_intervals() -> None:
    from transferbench.leaderboard.statistics import paired_difference

    draw = np.random.default_rng(0)
    counts = draw.multinomial(400, (0.125, 0.075, 0.8), size=500)
    widths = [np.subtract(*paired_difference(int(a), int(b), 400)[:0:-1]) for a, b, _ in counts]
    assert half_width(400, 0.05, 0.2) == pytest.approx(np.mean(widths) / 2, rel=0.01)


@pytest.mark.parametrize(
    ("difference", "discordance", "power", "words"),
    [
        (0.0, 0.2, 0.8, "difference of 0 points"),
        (0.3, 0.2, 0.8, "at most the discordance, 20 points"),
        (0.1, 1.2, 0.8, "discordance of 120 points"),
        (float("nan"), 0.2, 0.8, "difference of nan points"),
        (0.1, float("nan"), 0.8, "discordance of nan points"),
        (0.1, 0.2, 1.0, "power of 1"),
        (0.00001, 0.2, 0.8, "more than 10000000 examples"),
    ],
)
def test_what_has_no_n_is_refused(difference: float, discordance: float, power: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        examples_needed(difference, discordance, power)
