"""The final verdicts about a randomised model: all points at once, in order, by draws that no attack has seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from transferbench.base.results import DrawCounts, Verdict
from transferbench.base.specifications import ThreatModel
from transferbench.engine import draws
from transferbench.engine.judge import Judge, check_admissible, margin_is_tie
from transferbench.engine.verdicts import ChainResult, Examples


def judge_again(judge: Judge, threat: ThreatModel, examples: Examples, result: ChainResult) -> None:
    """Change a chain's result to the verdicts by the judge's first seed, and count robust examples by its other seeds
    and by single draws.

    A point that fooled the draws of its confirmation but not these does not count: its example is robust. Prediction
    and tie of those that count are the first seed's. An
    example counts as robust by another seed where it was attacked and that seed is right at its image and at its end
    point (its image for a survivor).
    """
    checked = judge.checks
    x, y, ids = examples
    attacked = torch.tensor([verdict.attack != "clean" for verdict in result.verdicts], device=x.device)
    fooled = torch.tensor([verdict.rank >= 0 for verdict in result.verdicts], device=x.device)
    # A copy, because the points of examples that turn out to be robust are put back.
    points = result.points.clone()
    check_admissible(threat, x, points, ids)
    logits = judge.logits(points, ids, 0)
    ties = margin_is_tie(logits, y)
    for at in fooled.nonzero().flatten().tolist():
        verdict, pred = result.verdicts[at], int(logits[at].argmax())
        if pred == int(y[at]):
            result.verdicts[at] = Verdict(verdict.example, False, "", -1, pred, 0.0, False)
            result.points[at] = x[at]
        else:
            result.verdicts[at] = verdict._replace(pred=pred, tie=bool(ties[at]))
    robust = [sum(not verdict.fooled for verdict in result.verdicts)]
    for stream in range(1, draws.JUDGE_SEEDS):
        right = _right(judge.logits(x, ids, stream), y) & _right(judge.logits(points, ids, stream), y)
        robust.append(int((attacked & right).sum()))
    single = attacked & _right(judge.single_draw(x), y) & _right(judge.single_draw(points), y)
    broke = Counter(verdict.attack for verdict in result.verdicts)
    standing = int(attacked.sum())
    for number, tally in enumerate(result.by_attack):
        standing -= broke[tally.attack]
        result.by_attack[number] = replace(tally, broke=broke[tally.attack], standing=standing)
    result.draws = DrawCounts(result.eot, judge.draws, tuple(robust), int(single.sum()))
    result.cost.checks += judge.checks - checked


def _right(logits: Tensor, y: Tensor) -> Tensor:
    return torch.eq(logits.argmax(1), y)
