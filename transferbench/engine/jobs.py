"""What each kind of evaluation job computes: plain results that a store can keep and a worker can send.

A shard is at most 256 consecutive examples of a data set's order; results are lists in that order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from transferbench import attacks
from transferbench.attacks import lockstep
from transferbench.data import Dataset
from transferbench.engine.checks import gradients_masked
from transferbench.engine.evaluate import Target, run_chain
from transferbench.engine.judge import check_admissible
from transferbench.engine.pool import Progress
from transferbench.engine.reference import run_reference
from transferbench.engine.verdicts import ChainResult
from transferbench.features import Penultimate
from transferbench.types import SHARD, AttackSpec, Chain, Cost, ThreatModel


def attack(
    target: Target,
    chain: Chain,
    shard: Dataset,
    seed: int,
    slots: int | None,
    progress: Progress | None,
    backend: str = "transferbench",
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(verdicts by column, cost, cost by attack; the fooled rows' ids and points)."""
    run = run_reference if backend == "autoattack" else run_chain
    done = run(target, chain, shard.pixels, shard.labels, shard.ids, seed, slots, progress)
    return _columns(done, target.flags), _fooled(done, shard)


def _columns(done: ChainResult, flags: tuple[str, ...]) -> dict[str, Any]:
    columns = [list(column) for column in zip(*done.verdicts, strict=True)]
    names = ("example", "fooled", "attack", "rank", "pred", "distance", "tie")
    return {
        "verdicts": dict(zip(names, columns, strict=True)),
        "by_attack": done.by_attack,
        "cost": done.cost.as_dict(),
        "flags": [*flags, *(["gradients-masked"] if gradients_masked(done.by_attack) else [])],
    }


def _fooled(done: ChainResult, shard: Dataset) -> dict[str, Tensor]:
    at = torch.tensor([place for place, verdict in enumerate(done.verdicts) if verdict.rank >= 0], dtype=torch.int64)
    return {"ids": shard.ids[at], "points": done.points[at.to(done.points.device)].cpu()}


def craft(
    source: Penultimate, spec: AttackSpec, threat: ThreatModel, shard: Dataset, seed: int, progress: Progress | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(cost; points [tries, n, ...]): what an attacker who holds only the source's features makes of the images."""
    attack = attacks.build(spec, threat, len(shard.classes))
    points, images = [], shard.pixels
    for attempt in range(attack.tries):
        noise = lockstep.try_keys(seed, threat.norm, threat.eps.text, attempt, shard.ids)
        points.append(lockstep.maximise(attack, source, images, shard.labels, noise, attempt=attempt).last)
        if progress is not None:
            progress(int(len(shard) * (attempt + 1) / attack.tries), len(shard))
    rows = len(shard) * attack.tries * attack.passes
    cost = Cost(forwards=rows, backwards=rows if attack.needs_grad else 0)
    return {"cost": cost.as_dict(), "tries": attack.tries}, {"ids": shard.ids, "points": torch.stack(points)}


def judge(
    target: Target, threat: ThreatModel, shard: Dataset, points: Tensor
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(clean-correct and per-try flips as lists; nothing to keep): a crafted set shown to one victim.

    A flip is an example that is correct on clean and wrong at the crafted point.
    """
    images, flips = shard.pixels, []
    correct = torch.eq(target.judge.logits(images, shard.ids).argmax(1), shard.labels)
    for attempt in points:
        check_admissible(threat, images, attempt, shard.ids)
        flips.append(correct & torch.ne(target.judge.logits(attempt, shard.ids).argmax(1), shard.labels))
    checks = len(shard) * (len(points) + 1)
    return {
        "correct": correct.tolist(),
        "flips": torch.stack(flips).tolist(),
        "cost": Cost(checks=checks).as_dict(),
    }, {}


def clean(target: Target, dataset: Dataset, device: torch.device | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(clean-correct over a whole split, decoded part by part; nothing to keep)."""
    correct = 0
    for part in dataset.batches(SHARD):
        here = part.on(device)
        correct += int(torch.eq(target.judge.logits(here.pixels, here.ids).argmax(1), here.labels).sum())
    return {"correct": correct, "n": len(dataset), "cost": Cost(checks=len(dataset)).as_dict()}, {}
