"""Verdicts in the making, for every way a chain is run (the pool, the reference, its replay)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from transferbench.base.results import Cost, Verdict


@dataclass
class ChainResult:
    """Verdicts in the examples' order, the end points [n, ...], the cost in all and per attack of the chain."""

    verdicts: list[Verdict]
    points: Tensor
    cost: Cost
    by_attack: list[dict[str, Any]] = field(default_factory=list)


class Tally:
    """Who still stands. Begins with the clean prediction: an example that is wrong there is fooled by `clean`."""

    def __init__(self, x: Tensor, y: Tensor, ids: Tensor, clean_pred: Tensor) -> None:
        self.ids = ids.tolist()
        self.points = x.clone()
        self.standing = torch.eq(clean_pred, y)
        self.cost = Cost()
        self.by_attack: list[dict[str, Any]] = []
        self.verdicts = [
            Verdict(id, not right, "" if right else "clean", -1, pred, 0.0, False)
            for id, right, pred in zip(self.ids, self.standing.tolist(), clean_pred.tolist(), strict=True)
        ]

    @property
    def left(self) -> Tensor:
        """int64: positions of the examples that still stand."""
        return self.standing.nonzero().flatten()

    def fooled(
        self,
        attack: str,
        ranks: Sequence[int],
        at: Tensor,
        points: Tensor,
        pred: Tensor,
        distance: Tensor,
        tie: Tensor,
    ) -> None:
        """The examples at these positions fell to these tries, at these points, as judged. Rows correspond."""
        rows = zip(at.tolist(), ranks, pred.tolist(), distance.tolist(), tie.tolist(), strict=True)
        for position, rank, predicted, apart, tied in rows:
            self.verdicts[position] = Verdict(self.ids[position], True, attack, rank, predicted, apart, tied)
        self.points[at] = points
        self.standing[at] = False

    def attack_done(self, attack: str, tries: int, spent: dict[str, int]) -> None:
        """Close an attack of the chain: what it broke, who stands, the passes it took."""
        standing = int(self.standing.sum())
        before = self.by_attack[-1]["standing"] if self.by_attack else sum(v.attack != "clean" for v in self.verdicts)
        self.cost.add(Cost(**spent))
        self.by_attack.append(
            {"attack": attack, "tries": tries, "broke": before - standing, "standing": standing, **spent}
        )

    def snapshot(self) -> dict[str, Any]:
        """What `restore` takes, of plain values and tensors."""
        return {
            "verdicts": [list(verdict) for verdict in self.verdicts],
            "points": self.points,
            "standing": self.standing,
            "by_attack": self.by_attack,
            "cost": self.cost.as_dict(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        device = self.points.device
        self.verdicts = [Verdict(*row) for row in saved["verdicts"]]
        self.points, self.standing = saved["points"].to(device), saved["standing"].to(device)
        self.by_attack, self.cost = saved["by_attack"], Cost(**saved["cost"])

    def result(self, checks: int, seconds: float) -> ChainResult:
        self.cost.checks, self.cost.seconds = checks, seconds
        return ChainResult(self.verdicts, self.points, self.cost, self.by_attack)
