"""The judge decides which points fool a network. Attacks do not report their own success.

A point counts when it is admissible under the threat (for a ball: finite, inside [0,1], inside the ball in float64)
and when the *original* model, in fp32, does not predict the label at it. An inadmissible point is a fault of the
attack: it raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from transferbench import threats
from transferbench.base.errors import FaultError
from transferbench.base.specifications import ThreatModel
from transferbench.engine.memory import Rows

FLOOR, LOW_FLOOR = 16, 4
"""Batches are padded to at least this many rows. Below 16 rows torch takes another convolution for small
contiguous images on a CPU, and a row's logits would depend, in the last bit, on the number of rows in the batch. Where
4 and 5 rows give the same bits as 16, batches are padded to 4 only."""

TIE = 1e-4
"""A hit whose margin is below this share of the logit range is a tie."""


class Judgement(NamedTuple):
    """Per row: fooled bool, tie bool (fooled by less than 1e-4 of the logit range), pred int64, distance float64."""

    fooled: Tensor
    tie: Tensor
    pred: Tensor
    distance: Tensor


class Judge:
    """Predictions of the original model, with a count of the rows it evaluated (`checks`)."""

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

    def __call__(self, threat: ThreatModel, x: Tensor, adversarial: Tensor, y: Tensor, ids: Tensor) -> Judgement:
        """Judge the points [B, ...] against the images x and labels y. FaultError for an inadmissible point."""
        distance = check_admissible(threat, x, adversarial, ids)
        logits = self.logits(adversarial, ids)
        pred = logits.argmax(1)
        fooled = torch.ne(pred, y)
        others = logits.scatter(1, y[:, None], -float("inf")).amax(1)
        margin = others - logits.gather(1, y[:, None]).squeeze(1)
        tie = fooled & (margin < TIE * (logits.amax(1) - logits.amin(1)))
        return Judgement(fooled, tie, pred, distance)


def at_least(x: Tensor, rows: int) -> Tensor:
    """x [B, ...] with its first row repeated at the end until there are as many."""
    short = rows - len(x)
    return torch.cat([x, x[:1].expand(short, *x.shape[1:])]) if short > 0 else x


def floor_of(model: Callable[[Tensor], Tensor], sample: Tensor) -> int:
    """The smallest batch in which the rows' outputs do not depend on the batch, by a test on `sample`: 4 or 16."""
    if len(sample) < FLOOR:
        return FLOOR
    with torch.no_grad():
        whole = model(sample[:FLOOR])
        few = [torch.equal(model(sample[:rows]), whole[:rows]) for rows in (LOW_FLOOR, LOW_FLOOR + 1)]
    return LOW_FLOOR if all(few) else FLOOR


def check_admissible(threat: ThreatModel, x: Tensor, adversarial: Tensor, ids: Tensor) -> Tensor:
    """float64 [B]: distances. FaultError for the first point that the threat does not admit, naming its example."""
    distance, conditions = threats.build(threat).admissible(x, adversarial)
    for met, fault in conditions:
        if not bool(met.all()):
            at = int((~met).nonzero()[0])
            raise FaultError(
                f"the attack's point for example id {int(ids[at])} is {fault} (distance {float(distance[at])!r}): "
                "the attack is wrong, nothing was counted"
            )
    return distance
