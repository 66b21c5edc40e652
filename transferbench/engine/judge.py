"""The judge: the only one who says that an example fooled a network. Attacks never report their own success.

A point counts when it is finite, inside [0,1], inside the ball in float64, and when the *original* model, in
fp32, does not predict the label there. A point outside its ball is not a miss but a fault: it raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from transferbench.base.errors import FaultError
from transferbench.base.specifications import SEED_BALL, ThreatModel
from transferbench.engine.memory import Rows
from transferbench.threats import geometry

FLOOR, LOW_FLOOR = 16, 4
"""Batches are padded to at least this many rows. Below 16 rows torch takes another convolution for small
contiguous images on a CPU, and a row's logits would depend, in the last bit, on how many rows came with it. Where
4 and 5 rows are seen to give the same bits as 16, padding stops at 4."""

TIE = 1e-4

_SEED_EXCESS = 2.0**-22
"""Four roundings of a float32 below 1: of the scaled radius, the sum, the bound, the sum that made the bound."""


class Judged(NamedTuple):
    """Per row: fooled bool, tie bool (fooled by less than 1e-4 of the logit range), pred int64, distance float64."""

    fooled: Tensor
    tie: Tensor
    pred: Tensor
    distance: Tensor


class Judge:
    """Predictions of the original model with a count of the rows it was asked for (`checks`)."""

    def __init__(self, model: nn.Module, batch_size: int = 256, floor: int = FLOOR) -> None:
        self.model, self.floor = model, floor
        self.rows = Rows(batch_size, floor)
        self.checks = 0

    def logits(self, x: Tensor, ids: Tensor | None = None) -> Tensor:
        """float32 [B, C] of the original model. FaultError when a logit is not finite, naming the examples."""
        logits = self.rows.within_memory(lambda most: self._logits(x, most))
        self.checks += len(x)
        bad = ~torch.isfinite(logits).all(1)
        if bool(bad.any()):
            rows = bad.nonzero().flatten().cpu()
            names = rows if ids is None else ids.cpu()[rows]
            raise FaultError(
                f"the model's logits are not finite for example ids {names[:8].tolist()}: a NaN would count as a "
                "prediction of class 0; repair the model before evaluating it"
            )
        return logits

    def _logits(self, x: Tensor, most: int) -> Tensor:
        with torch.no_grad():
            parts = [self.model(at_least(chunk, self.floor))[: len(chunk)].float() for chunk in x.split(most)]
        return torch.cat(parts)

    def __call__(self, threat: ThreatModel, x: Tensor, adversarial: Tensor, y: Tensor, ids: Tensor) -> Judged:
        """Judge the points [B, ...] against the images x and labels y. FaultError for an inadmissible point."""
        distance = check_admissible(threat, x, adversarial, ids)
        logits = self.logits(adversarial, ids)
        pred = logits.argmax(1)
        fooled = torch.ne(pred, y)
        others = logits.scatter(1, y[:, None], -float("inf")).amax(1)
        margin = others - logits.gather(1, y[:, None]).squeeze(1)
        tie = fooled & (margin < TIE * (logits.amax(1) - logits.amin(1)))
        return Judged(fooled, tie, pred, distance)


def at_least(x: Tensor, rows: int) -> Tensor:
    """x [B, ...] with its first row repeated at the end until there are as many."""
    short = rows - len(x)
    return torch.cat([x, x[:1].expand(short, *x.shape[1:])]) if short > 0 else x


def floor_of(model: Callable[[Tensor], Tensor], sample: Tensor) -> int:
    """The smallest batch in which the model's rows were seen not to depend on their neighbours: 4 or 16."""
    if len(sample) < FLOOR:
        return FLOOR
    with torch.no_grad():
        whole = model(sample[:FLOOR])
        few = [torch.equal(model(sample[:rows]), whole[:rows]) for rows in (LOW_FLOOR, LOW_FLOOR + 1)]
    return LOW_FLOOR if all(few) else FLOOR


def check_admissible(threat: ThreatModel, x: Tensor, adversarial: Tensor, ids: Tensor) -> Tensor:
    """float64 [B]: distances. FaultError when a point is not finite, outside [0,1] or outside the ball.

    In Renofeation's own ball [0,1] need not be kept: its bounds stand in for both, and the distance is Linf's.
    """
    finite = torch.isfinite(adversarial.flatten(1)).all(1)
    distance = geometry.distance(threat.norm, x, adversarial)
    if threat.norm == SEED_BALL:
        low, high = geometry.seed_bounds(x.double(), float(threat.eps))
        inside = (adversarial >= low - _SEED_EXCESS) & (adversarial <= high + _SEED_EXCESS)
        near, boxed = inside.flatten(1).all(1), torch.ones_like(finite)
    else:
        boxed = (adversarial.flatten(1).amin(1) >= 0) & (adversarial.flatten(1).amax(1) <= 1)
        near = distance <= float(threat.eps) + geometry.tolerance(threat.norm, x[0].numel())
    for admissible, fault in (
        (finite, "not finite"),
        (boxed, "outside [0,1]"),
        (near, f"outside the ball {threat}"),
    ):
        if not bool(admissible.all()):
            at = int((~admissible).nonzero()[0])
            raise FaultError(
                f"the attack's point for example id {int(ids[at])} is {fault} (distance {float(distance[at])!r}): "
                "the attack is wrong, nothing was counted"
            )
    return distance
