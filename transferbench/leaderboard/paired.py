"""The difference of two rates on the same examples: in points, with its interval, and as columns of a table."""

from __future__ import annotations

from typing import Any, Protocol

from transferbench.leaderboard.column import Column
from transferbench.leaderboard.statistics import paired_difference

Ends = tuple[float, float, float]
"""(difference, lower end, upper end) in points."""


class Differing(Protocol):
    """What a row with a difference is about."""

    @property
    def difference(self) -> Ends | None:
        """None where there is nothing to compare with."""


def difference(first: int, second: int, n: int) -> Ends:
    """Of the rates of two sets of n examples, given as the bits of whole numbers. n must be at least 1."""
    only = (first & ~second).bit_count(), (second & ~first).bit_count()
    value, low, high = paired_difference(*only, n)
    return 100 * value, 100 * low, 100 * high


def columns(of: str) -> list[Column[Any]]:
    """`difference`, whose meaning is `of`, and the ends of its interval."""
    return [
        Column("difference", f"{of}, points", lambda one: _cell(one, 0)),
        Column(
            "difference_low",
            "lower end of its 95 % interval for paired proportions (Bonett and Price 2012), points",
            lambda one: _cell(one, 1),
        ),
        Column("difference_high", "upper end, points", lambda one: _cell(one, 2)),
    ]


def _cell(one: Differing, place: int) -> str:
    return "" if one.difference is None else f"{one.difference[place]:.2f}"
