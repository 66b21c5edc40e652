"""The final verdicts about a randomised model: all points at once, in order, by draws that no attack has seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from transferbench.base.results import DrawCounts, Verdict
from transferbench.base.specifications import ThreatModel
from transferbench.engine import draws
from transferbench.engine.judge import Judge, check_admissible
from transferbench.engine.verdicts import ChainResult, Examples


def judge_again(
    judge: Judge, threat: ThreatModel, examples: Examples, clean_logits: Tensor, result: ChainResult
) -> None:
    """Change a chain's result to the verdicts by the judge's first seed, and count robust examples by its other seeds
    and by single draws.

    A point that fooled the draws of its confirmation but not these does not count: its example is robust.
    `clean_logits` [n, C] are those of the first seed at the images. An example counts as robust by another
    seed where it was attacked and that seed is right at its image and at its end point (its image for a survivor).
    """
    checked = judge.checks
    x, y, ids = examples
    attacked = torch.tensor([verdict.attack != "clean" for verdict in result.verdicts], device=x.device)
    # A copy, because the points of examples that turn out to be robust are put back.
    points = result.points.clone()
    check_admissible(threat, x, points, ids)
    robust = []
    for stream in range(draws.JUDGE_SEEDS):
        right = _right(clean_logits if stream == 0 else judge.logits(x, ids, stream), y)
        stands = attacked & right & _right(judge.logits(points, ids, stream), y)
        robust.append(int(stands.sum()))
        if stream == 0:
            for at in stands.nonzero().flatten().tolist():
                example = result.verdicts[at].example
                result.verdicts[at] = Verdict(example, False, "", -1, int(y[at]), 0.0, False)
                result.points[at] = x[at]
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
