"""The judge: decides which points fool a network. Attacks do not report their own success.

A point fools when it is admissible under the threat (for a ball: finite, inside [0,1], inside the ball in float64) and
the *original* model, in fp32, does not predict the label at it. An inadmissible point is a fault of the attack and
raises FaultError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from transferbench import threats
from transferbench.base.errors import FaultError
from transferbench.base.specifications import ThreatModel
from transferbench.engine import draws
from transferbench.engine.memory import Rows
from transferbench.engine.verdicts import Examples

FLOOR, LOW_FLOOR = 16, 4
"""Batches are padded to at least FLOOR rows: below 16 rows torch uses another convolution for small contiguous images
on a CPU, and a row's logits would depend, in the last bit, on the batch size. Where batches of 4 and 5 rows have the
same bits as one of 16, they are padded to LOW_FLOOR only."""

TIE = 1e-4
"""A fooling point whose logit margin is below this share of the logit range is a tie."""


class Judgement(NamedTuple):
    """The judge's verdicts [B]: fooled bool, tie bool (fooled by less than 1e-4 of the logit range), pred int64,
    distance float64 under the threat, and `margin`: how far the label is ahead of the best other class, as a share of
    the logit range."""

    fooled: Tensor
    tie: Tensor
    pred: Tensor
    distance: Tensor
    margin: Tensor


class Judge:
    """Evaluates the original model; `checks` counts the rows. `draws` (`draws_each`): the number of draws whose mean
    softmax decides about a randomised model (engine/draws.py), 1 for others."""

    def __init__(self, model: nn.Module, batch_size: int = 256, floor: int = FLOOR, draws_each: int = 1) -> None:
        self.model, self.floor, self.draws = model, floor, draws_each
        self.rows = Rows(batch_size, floor)
        self.checks = 0

    def logits(self, x: Tensor, ids: Tensor | None = None, stream: object = 0) -> Tensor:
        """float32 [B, C]: the original model's logits; of a randomised model the logarithm of the mean softmax of the
        draws that `stream` seeds, in which the largest logit is the decision's class.

        FaultError with the example ids when a logit is not finite.
        """
        logits = self.rows.within_memory(lambda most: self._mean_logits(x, most, stream))
        self.checks += len(x) * self.draws
        bad = ~torch.isfinite(logits).all(1)
        if bool(bad.any()):
            rows = bad.nonzero().flatten().cpu()
            names = rows if ids is None else ids.cpu()[rows]
            raise FaultError(
                f"the model's logits are not finite for example ids {names[:8].tolist()}: a NaN would count as a "
                "prediction of class 0; repair the model before evaluating it"
            )
        return logits

    def single_draw(self, x: Tensor) -> Tensor:
        """float32 [B, C]: the logits of one forward pass, seeded apart from all other draws."""
        draws.seed_draw("single draw")
        self.checks += len(x)
        return self.rows.within_memory(lambda most: self._logits(x, most))

    def _mean_logits(self, x: Tensor, most: int, stream: object) -> Tensor:
        if self.draws == 1:
            return self._logits(x, most)
        outputs = []
        for draw in range(self.draws):
            draws.seed_draw("judge", stream, draw)
            outputs.append(self._logits(x, most))
        return draws.mean_log_softmax(outputs)

    def _logits(self, x: Tensor, most: int) -> Tensor:
        with torch.no_grad():
            parts = [self.model(at_least(chunk, self.floor))[: len(chunk)].float() for chunk in x.split(most)]
        return torch.cat(parts)

    def __call__(self, threat: ThreatModel, x: Tensor, adversarial: Tensor, y: Tensor, ids: Tensor) -> Judgement:
        """Judge the points [B, ...] against the images x and labels y. FaultError for an inadmissible point."""
        return self._judged(threat, Examples(x, y, ids), adversarial, 0)

    def confirm(
        self, threat: ThreatModel, x: Tensor, adversarial: Tensor, y: Tensor, ids: Tensor, number: int
    ) -> Judgement:
        """The same while an attack runs, for the `number`-th time: every call has draws of its own, because an attack
        that proposes a hundred points to the same draws would be told which of them are lucky."""
        return self._judged(threat, Examples(x, y, ids), adversarial, f"confirmation {number}")

    def _judged(self, threat: ThreatModel, examples: Examples, adversarial: Tensor, stream: object) -> Judgement:
        x, y, ids = examples
        distance = check_admissible(threat, x, adversarial, ids)
        logits = self.logits(adversarial, ids, stream)
        pred = logits.argmax(1)
        fooled = torch.ne(pred, y)
        lead, spread = _lead(logits, y)
        return Judgement(fooled, fooled & (lead < TIE * spread), pred, distance, -lead / spread.clamp(min=1e-12))


def margin_is_tie(logits: Tensor, y: Tensor) -> Tensor:
    """bool [B]: the best other class is ahead of the label by less than a tie's share of the logit range."""
    lead, spread = _lead(logits, y)
    return lead < TIE * spread


def _lead(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """[B] each: how far the best other class is ahead of the label, and the range of the row's logits."""
    others = logits.scatter(1, y[:, None], -float("inf")).amax(1)
    return others - logits.gather(1, y[:, None]).squeeze(1), logits.amax(1) - logits.amin(1)


def at_least(x: Tensor, rows: int) -> Tensor:
    """x [B, ...] padded at its end with copies of its first row to at least `rows` rows."""
    short = rows - len(x)
    return torch.cat([x, x[:1].expand(short, *x.shape[1:])]) if short > 0 else x


def floor_of(model: Callable[[Tensor], Tensor], sample: Tensor) -> int:
    """The smallest batch in which a row's output does not depend on the batch size, tested on `sample`: 4 or 16."""
    if len(sample) < FLOOR:
        return FLOOR
    with torch.no_grad():
        expected = model(sample[:FLOOR])
        equal = [torch.equal(model(sample[:rows]), expected[:rows]) for rows in (LOW_FLOOR, LOW_FLOOR + 1)]
    return LOW_FLOOR if all(equal) else FLOOR


def check_admissible(threat: ThreatModel, x: Tensor, adversarial: Tensor, ids: Tensor) -> Tensor:
    """float64 [B]: the points' distances. FaultError with the example id of the first inadmissible point."""
    distance, conditions = threats.build(threat).admissible(x, adversarial)
    for met, fault in conditions:
        if not bool(met.all()):
            at = int((~met).nonzero()[0])
            raise FaultError(
                f"the attack's point for example id {int(ids[at])} is {fault} (distance {float(distance[at])!r}): "
                "the attack is wrong, nothing was counted"
            )
    return distance
