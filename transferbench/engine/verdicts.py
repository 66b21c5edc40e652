"""Examples under attack and their verdicts, for every way a chain is run: the pool, the reference, its replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from transferbench.base.checkpoint import State
from transferbench.base.results import AttackTally, Cost, Verdict


class Examples(NamedTuple):
    """Images x [n, ...] in [0,1], labels y int64 [n], ids int64 [n] that key the random starts."""

    x: Tensor
    y: Tensor
    ids: Tensor

    def at(self, positions: Tensor) -> Examples:
        return Examples(self.x[positions], self.y[positions], self.ids[positions])


@dataclass
class ChainResult:
    """Verdicts in the examples' order, the end points [n, ...], the cost in all and per attack of the chain."""

    verdicts: list[Verdict]
    points: Tensor
    cost: Cost
    by_attack: list[AttackTally] = field(default_factory=list)


class Hits(NamedTuple):
    """Fooling points [B, ...] as judged: predictions, float64 distances, ties."""

    points: Tensor
    pred: Tensor
    distance: Tensor
    tie: Tensor


class Tally:
    """The verdicts so far. An example that is wrong on the clean image starts as fooled by `clean`."""

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
    def left(self) -> Tensor:
        """int64: positions of the examples that are still robust."""
        return self.standing.nonzero().flatten()

    def fooled(self, attack: str, ranks: Sequence[int], at: Tensor, hits: Hits) -> None:
        """Record that the tries of these ranks fooled the examples at these positions. Rows correspond."""
        points = hits.points
        rows = zip(at.tolist(), ranks, hits.pred.tolist(), hits.distance.tolist(), hits.tie.tolist(), strict=True)
        for position, rank, predicted, apart, tied in rows:
            self.verdicts[position] = Verdict(self.ids[position], True, attack, rank, predicted, apart, tied)
        self.points[at] = points
        self.standing[at] = False

    def attack_done(self, attack: str, tries: int, spent: dict[str, int]) -> None:
        """Close an attack of the chain; `spent` are its passes by kind."""
        standing = int(self.standing.sum())
        before = self.by_attack[-1].standing if self.by_attack else sum(v.attack != "clean" for v in self.verdicts)
        self.cost.add(Cost(**spent))
        self.by_attack.append(AttackTally(attack, tries, before - standing, standing, **spent))

    def snapshot(self) -> State:
        """The state for `restore`, of plain values and tensors."""
        return {
            "verdicts": [list(verdict) for verdict in self.verdicts],
            "points": self.points,
            "standing": self.standing,
            "by_attack": [asdict(part) for part in self.by_attack],
            "cost": asdict(self.cost),
        }

    def restore(self, saved: State) -> None:
        device = self.points.device
        self.verdicts = [Verdict(*row) for row in saved["verdicts"]]
        self.points, self.standing = saved["points"].to(device), saved["standing"].to(device)
        self.by_attack = [AttackTally(**part) for part in saved["by_attack"]]
        self.cost = Cost(**saved["cost"])

    def result(self, checks: int, seconds: float) -> ChainResult:
        self.cost.checks, self.cost.seconds = checks, seconds
        return ChainResult(self.verdicts, self.points, self.cost, self.by_attack)
