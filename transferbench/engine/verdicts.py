"""Examples under attack and their verdicts, shared by the pool, the reference backend and its replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from transferbench.base.checkpoint import State
from transferbench.base.results import AttackTally, Cost, DrawCounts, Verdict
from transferbench.base.settings import Precision

OnSettled = Callable[[int, int], None]
"""Called with (examples that have their verdict, examples that are still robust)."""


class Examples(NamedTuple):
    """Images x [n, ...] in [0,1], labels y int64 [n], example ids int64 [n], which key the random starts."""

    x: Tensor
    y: Tensor
    ids: Tensor

    def at(self, positions: Tensor) -> Examples:
        """The examples at the positions."""
        return Examples(self.x[positions], self.y[positions], self.ids[positions])


@dataclass
class ChainResult:
    """The verdicts in the examples' order, the end points [n, ...], the cost of the chain and of each attack.

    `flags` and `flag_rows`: names from preflight.FLAGS, and the number of clean-correct examples of those that are
    counted. `batch`: the rows in flight, where the verdicts belong to one batch size and order. `eot`: the
    draws of each attack's gradients; `draws`: how a randomised model was judged. `precision` of the search;
    `searched_again`: the examples that a search in bf16 left near the boundary, searched once more in fp32.
    """

    verdicts: list[Verdict]
    points: Tensor
    cost: Cost
    by_attack: list[AttackTally] = field(default_factory=list)
    flags: tuple[str, ...] = ()
    flag_rows: dict[str, int] = field(default_factory=dict)
    batch: int | None = None
    eot: tuple[int, ...] = ()
    draws: DrawCounts | None = None
    precision: Precision = "fp32"
    searched_again: int = 0


class Hits(NamedTuple):
    """Fooling points [B, ...] with the judge's predictions int64, distances float64 and ties bool, [B] each."""

    points: Tensor
    pred: Tensor
    distance: Tensor
    tie: Tensor


class VerdictTable:
    """The verdicts of a chain while it runs. A misclassified clean image counts as fooled by the attack `clean`."""

    def __init__(self, examples: Examples, clean_pred: Tensor) -> None:
        self.ids = examples.ids.tolist()
        self.points = examples.x.clone()
        self.standing = torch.eq(clean_pred, examples.y)
        self.cost = Cost()
        self.by_attack: list[AttackTally] = []
        self.verdicts = [
            Verdict(id, not right, "" if right else "clean", -1, pred, 0.0, False)
            for id, right, pred in zip(self.ids, self.standing.tolist(), clean_pred.tolist(), strict=True)
        ]

    @property
    def robust(self) -> Tensor:
        """int64: the positions of the examples that are still robust."""
        return self.standing.nonzero().flatten()

    def add_hits(self, attack: str, ranks: Sequence[int], at: Tensor, hits: Hits) -> None:
        """Record that tries of an attack fooled the examples at the positions `at`; ranks, `at` and hits correspond."""
        rows = zip(at.tolist(), ranks, hits.pred.tolist(), hits.distance.tolist(), hits.tie.tolist(), strict=True)
        for position, rank, pred, distance, tie in rows:
            self.verdicts[position] = Verdict(self.ids[position], True, attack, rank, pred, distance, tie)
        self.points[at] = hits.points
        self.standing[at] = False

    def close_attack(self, attack: str, tries: int, spent: dict[str, int]) -> None:
        """Count the examples of an attack that has ended; `spent` are its forwards, backwards and wasted passes."""
        standing = int(self.standing.sum())
        before = self.by_attack[-1].standing if self.by_attack else sum(v.attack != "clean" for v in self.verdicts)
        self.cost.add(Cost(**spent))
        self.by_attack.append(AttackTally(attack, tries, before - standing, standing, **spent))

    def snapshot(self) -> State:
        """The state for `restore`: plain values and tensors."""
        return {
            "verdicts": [list(verdict) for verdict in self.verdicts],
            "points": self.points,
            "standing": self.standing,
            "by_attack": [asdict(part) for part in self.by_attack],
            "cost": asdict(self.cost),
        }

    def restore(self, saved: State) -> None:
        """Continue from a snapshot."""
        device = self.points.device
        self.verdicts = [Verdict(*row) for row in saved["verdicts"]]
        self.points, self.standing = saved["points"].to(device), saved["standing"].to(device)
        self.by_attack = [AttackTally(**part) for part in saved["by_attack"]]
        self.cost = Cost(**saved["cost"])

    def result(self, checks: int, seconds: float) -> ChainResult:
        """The result of the whole chain, with the judge's passes and the wall time added to its cost."""
        self.cost.checks, self.cost.seconds = checks, seconds
        return ChainResult(self.verdicts, self.points, self.cost, self.by_attack)
