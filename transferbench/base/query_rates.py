"""Success rates of query attacks at budgets, from the number of queries that each example took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transferbench.base.results import WRONG_ON_CLEAN

BUDGETS = (1, 10, 50, 100, 500)
"""The numbers of queries at which success is told."""


class QueryRate(NamedTuple):
    """Of `n` clean-correct examples, `successes` fooled the victim within `queries` queries."""

    queries: int
    successes: int
    n: int

    @property
    def rate(self) -> float | None:
        """The share, None without a clean-correct example."""
        return self.successes / self.n if self.n else None


def success_rates(queries: Sequence[int], budget: int, at: Sequence[int] = BUDGETS) -> list[QueryRate]:
    """The rates at those numbers of queries that lie within the budget, from the counts of a QueryResult.

    The examples of shards may be joined: `[*first.queries, *second.queries]`. A budget below the smallest number has no
    rates.
    """
    attacked = [number for number in queries if number != WRONG_ON_CLEAN]
    return [
        QueryRate(most, sum(0 < number <= most for number in attacked), len(attacked)) for most in at if most <= budget
    ]
