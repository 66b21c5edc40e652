"""Typed results of evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Verdict(NamedTuple):
    """What one chain did to one example.

    `attack` is the id of the attack whose try fooled (`clean` for an example that was wrong before any
    attack, empty for a survivor), `rank` the try's rank in the chain, `pred` the class predicted at the end
    point, `distance` the end point's float64 distance in the chain's norm, `tie` whether the hit's logit
    margin is below 1e-4 of the logit range.
    """

    example: int
    fooled: bool
    attack: str
    rank: int
    pred: int
    distance: float
    tie: bool


@dataclass
class Cost:
    """Rows through a network once. `wasted` counts backwards of cancelled tries, `checks` clean predictions and
    confirmations."""

    forwards: int = 0
    backwards: int = 0
    wasted: int = 0
    checks: int = 0
    seconds: float = 0.0

    def add(self, other: Cost) -> None:
        self.forwards += other.forwards
        self.backwards += other.backwards
        self.wasted += other.wasted
        self.checks += other.checks
        self.seconds += other.seconds

    def as_dict(self) -> dict[str, int | float]:
        return dict(vars(self))
