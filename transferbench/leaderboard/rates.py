"""A rate by its counts, and how tables print it."""

from __future__ import annotations

from typing import NamedTuple

from transferbench.leaderboard.statistics import wilson


def percent(successes: int, n: int) -> str:
    """Two decimals; empty where the rate is undefined (n = 0)."""
    return f"{100 * successes / n:.2f}" if n else ""


class Rate(NamedTuple):
    """Successes of n."""

    successes: int
    n: int

    @property
    def share(self) -> float:
        return self.successes / self.n

    @property
    def points(self) -> float:
        """In percentage points."""
        return 100 * self.successes / self.n

    @property
    def percent(self) -> str:
        return percent(self.successes, self.n)

    @property
    def interval(self) -> tuple[str, str]:
        """Both ends of the 95 % Wilson interval in percent; empty where the rate is undefined."""
        if not self.n:
            return "", ""
        low, high = wilson(self.successes, self.n)
        return f"{100 * low:.2f}", f"{100 * high:.2f}"
