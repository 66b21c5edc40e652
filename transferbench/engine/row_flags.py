"""Suspicions that are counted over every attacked row: how many of the clean-correct examples each flag holds for.

A look at the first images would miss a network whose gradient is gone for one class, in data sorted by class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from transferbench.attacks import losses
from transferbench.engine.autograd_calls import record_autograd_calls
from transferbench.engine.judge import Judge, at_least
from transferbench.engine.memory import Rows
from transferbench.engine.row_independence import differing

COUNTED = ("softmax-output", "zero-gradient", "cross-entropy-underflow", "mixes-rows")
"""The flags whose share of the attacked examples is in the record."""

_SUMS_TO_ONE = 1e-4
_REPEATABLE = 1e-6
_SATURATED = 40.0
"""Below this logit margin the cross-entropy's gradient is at least 1e-18 at the logits and is not looked at again."""


class RowFlags:
    """Counts rows by flag, and looks at the model once more after the attack.

    `rows` is how many were looked at, `checks` the rows of the passes that this took.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTED, 0)
        self.rows = self.checks = 0
        self.others: set[str] = set()
        """Flags that hold for the model and not for single rows."""

    @property
    def found(self) -> dict[str, int]:
        """The flags that hold for any row, with their counts."""
        return {name: count for name, count in self.counts.items() if count}

    def add_clean(self, model: nn.Module, x: Tensor, y: Tensor, rows: Rows) -> None:
        """Look at images [n, ...] that the model classifies correctly: its outputs and gradients at each of them."""
        self.rows += len(x)
        found, checks = rows.within_memory(lambda most: _looked_at(model, x, y, most, rows.floor))
        self.checks += checks
        for name, count in found.items():
            self.counts[name] += count

    def add_end_points(self, judge: Judge, points: Tensor, ids: Tensor, share: float) -> None:
        """Ask the model for its end points [n, ...] once in order, once in reverse order and smaller batches."""
        if len(points) == 0:
            return
        with record_autograd_calls() as calls:
            expected = judge.logits(points, ids)
        if calls:
            self.others.add("gradient-inside")
        smaller = max(judge.floor, min(judge.rows.most, len(points)) // 2 - 3)
        batches = [at_least(chunk, judge.floor) for chunk in points.flip(0).split(smaller)]
        with torch.no_grad():
            answers = torch.cat([judge.model(batch).float() for batch in batches])[: len(points)]
        self.checks += sum(map(len, batches))
        self.counts["mixes-rows"] += int(differing(expected, answers.flip(0), share).sum())

    def add_later_answers(self, judge: Judge, x: Tensor, earlier: Tensor) -> None:
        """Ask for images [n, ...] again whose logits were `earlier` [n, C] before the attack."""
        if len(x) and bool(differing(earlier, judge.logits(x), _REPEATABLE).any()):
            self.others.add("state-between-calls")


def _looked_at(model: nn.Module, x: Tensor, y: Tensor, most: int, floor: int) -> tuple[dict[str, int], int]:
    """(counts by flag, rows of the passes), at most `most` rows at once and padded to `floor`."""
    counts, checks = dict.fromkeys(COUNTED, 0), 0
    for rows in torch.arange(len(x), device=x.device).split(most):
        n = len(rows)
        labels = y[rows]
        with torch.enable_grad():
            point = at_least(x[rows], floor).detach().requires_grad_()
            output = model(point)
            logits = output[:n].float()
            top = logits.topk(2, dim=1).values
            margin = top[:, 0] - top[:, 1]
            saturated = bool((margin > _SATURATED).any())
            gradient = torch.autograd.grad(margin.sum(), point, retain_graph=saturated)[0][:n]
            checks += 2 * len(point)
            has_margin = _nonzero(gradient)
            if saturated:
                loss = losses.cross_entropy(logits, labels).sum()
                blind = ~_nonzero(torch.autograd.grad(loss, point)[0][:n])
                counts["cross-entropy-underflow"] += int((blind & has_margin).sum())
                checks += len(point)
        counts["zero-gradient"] += int((~has_margin).sum())
        values = logits.detach()
        probabilities = (values >= 0).all(1) & ((values.sum(1) - 1).abs() < _SUMS_TO_ONE)
        counts["softmax-output"] += int(probabilities.sum())
    return counts, checks


def _nonzero(gradient: Tensor) -> Tensor:
    """bool [B]: rows whose gradient has an entry other than zero. A NaN counts as zero."""
    return gradient.flatten(1).abs().amax(1).gt(0)
