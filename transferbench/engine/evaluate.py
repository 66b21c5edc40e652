"""One chain against one model on some examples: clean prediction, pool, verdicts, cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from transferbench import attacks
from transferbench.engine import checks
from transferbench.engine.frozen import Frozen, as_is, freeze
from transferbench.engine.judge import FLOOR, Judge, floor_of
from transferbench.engine.pool import Pool, Progress
from transferbench.types import Chain, Cost, Verdict

_PREFLIGHT_ROWS = 16


def default_slots(dimension: int) -> int:
    """Rows in flight on a CPU: 64 at 3x32x32, more for smaller images, up to 256. Verdicts do not depend on it."""
    return min(256, max(32, 196_608 // dimension))


@dataclass
class Target:
    """A model made ready for evaluation once and used for many chains: its judge, its copy, its flags."""

    judge: Judge
    frozen: Frozen
    num_classes: int
    flags: tuple[str, ...]
    _clean: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    @classmethod
    def prepare(cls, model: nn.Module, x: Tensor, y: Tensor, batch_size: int | None = None) -> Target:
        """Pre-flight on the first images. InputError where the model or the examples are refused."""
        rows = x[:_PREFLIGHT_ROWS]
        preflight = checks.check_model(model, rows, y[:_PREFLIGHT_ROWS])
        checks.check_labels(y, preflight.num_classes)
        frozen = freeze(model, rows) if preflight.copyable else as_is(model)
        floor = floor_of(model, rows) if preflight.copyable else FLOOR
        return cls(Judge(model, batch_size or 256, floor), frozen, preflight.num_classes, preflight.flags)

    def clean_logits(self, x: Tensor, ids: Tensor) -> Tensor:
        """The original model's logits on x, computed once for all chains that attack the same images."""
        if self._clean is None or self._clean[0] is not x:
            self._clean = (x, self.judge.logits(x, ids))
        return self._clean[1]


@dataclass
class ChainResult:
    """Verdicts in the examples' order, the end points [n, ...], the cost in all and per attack of the chain."""

    verdicts: list[Verdict]
    points: Tensor
    cost: Cost
    by_attack: list[dict[str, Any]] = field(default_factory=list)


def run_chain(
    target: Target,
    chain: Chain,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    seed: int,
    slots: int | None = None,
    progress: Progress | None = None,
) -> ChainResult:
    """Attack x [n, ...] in [0,1] with labels y and ids int64 [n]; examples that are wrong on clean are fooled."""
    began, checked = time.perf_counter(), target.judge.checks
    built = [attacks.build(spec, chain.threat, target.num_classes) for spec in chain.attacks]
    logits = target.clean_logits(x, ids)
    clean_pred = logits.argmax(1)
    standing = torch.eq(clean_pred, y).nonzero().flatten()
    points, verdicts = x.clone(), {}
    pool = Pool(built, chain.threat, target.frozen, target.judge, slots or default_slots(x[0].numel()), seed)
    cost, by_attack = Cost(), []
    if len(standing):
        swept = pool.run(x[standing], y[standing], ids[standing], logits[standing], progress)
        points[standing] = swept.points
        for place, position in enumerate(standing.tolist()):
            rank = int(swept.rank[place])
            verdicts[position] = Verdict(
                example=int(ids[position]),
                fooled=rank >= 0,
                attack=built[pool.owner[rank]].id if rank >= 0 else "",
                rank=rank,
                pred=int(swept.pred[place]),
                distance=float(swept.distance[place]),
                tie=bool(swept.tie[place]),
            )
        left = len(standing)
        for number, attack in enumerate(built):
            ranks = [rank for rank, owner in enumerate(pool.owner) if owner == number]
            broke = sum(int((swept.rank == rank).sum()) for rank in ranks)
            left -= broke
            spent = {name: int(getattr(swept.spent, name)[ranks].sum()) for name in ("forwards", "backwards", "wasted")}
            by_attack.append({"attack": attack.id, "tries": len(ranks), "broke": broke, "standing": left, **spent})
            cost.add(Cost(**spent))
    for position in torch.ne(clean_pred, y).nonzero().flatten().tolist():
        verdicts[position] = Verdict(int(ids[position]), True, "clean", -1, int(clean_pred[position]), 0.0, False)
    cost.checks = target.judge.checks - checked
    cost.seconds = time.perf_counter() - began
    return ChainResult([verdicts[position] for position in range(len(x))], points, cost, by_attack)
