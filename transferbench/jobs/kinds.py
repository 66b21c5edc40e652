"""What each kind of evaluation job computes: plain results that a store can keep and a worker can send.

A shard is at most 256 consecutive examples of a data set's order; results are lists in that order.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from transferbench import attacks
from transferbench.base.results import Cost
from transferbench.base.specifications import KEEP, SHARD, AttackSpec, Chain, Keep, ThreatModel
from transferbench.data import Dataset
from transferbench.engine import judge as judging
from transferbench.engine.chain import Target, default_slots, run_chain
from transferbench.engine.crafting import Crafting
from transferbench.engine.judge import check_admissible
from transferbench.engine.memory import Rows
from transferbench.engine.pool import Progress
from transferbench.engine.preflight import gradients_masked
from transferbench.engine.reference import run_reference
from transferbench.engine.verdicts import ChainResult
from transferbench.models.features import Penultimate
from transferbench.store.checkpoint_file import NOTHING, Checkpoint


def attack(
    target: Target,
    chain: Chain,
    shard: Dataset,
    seed: int,
    backend: str = "transferbench",
    keep: Keep = KEEP,
    progress: Progress | None = None,
    checkpoint: Checkpoint = NOTHING,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(verdicts by column, cost, cost by attack; ids and points of the rows that `keep` names)."""
    run = run_reference if backend == "autoattack" else run_chain
    done = run(target, chain, shard.pixels, shard.labels, shard.ids, seed, progress, checkpoint)
    return _columns(done, target.flags) | {
        "kept": str(keep),
        "halvings": target.rows.halvings,
        "folded": target.frozen.folded,
    }, _kept(done, shard, keep)


def _columns(done: ChainResult, flags: tuple[str, ...]) -> dict[str, Any]:
    columns = [list(column) for column in zip(*done.verdicts, strict=True)]
    names = ("example", "fooled", "attack", "rank", "pred", "distance", "tie")
    return {
        "verdicts": dict(zip(names, columns, strict=True)),
        "by_attack": done.by_attack,
        "cost": done.cost.as_dict(),
        "flags": [*flags, *(["gradients-masked"] if gradients_masked(done.by_attack) else [])],
    }


def _kept(done: ChainResult, shard: Dataset, keep: Keep) -> dict[str, Tensor]:
    places = range(len(shard)) if keep.kind == "all" else _fooled(done)
    if keep.kind in ("sample", "none"):
        places = list(places)[: keep.count]
    at = torch.tensor(list(places), dtype=torch.int64)
    return {"ids": shard.ids[at].cpu(), "points": done.points[at.to(done.points.device)].cpu()}


def _fooled(done: ChainResult) -> list[int]:
    return [place for place, verdict in enumerate(done.verdicts) if verdict.rank >= 0]


def craft(
    source: Penultimate,
    spec: AttackSpec,
    threat: ThreatModel,
    shard: Dataset,
    seed: int,
    batch_size: int | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint = NOTHING,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(cost; points [tries, n, ...]): what an attacker who holds only the source's features makes of the images."""
    attack = attacks.build(spec, threat, len(shard.classes))
    rows = Rows(batch_size or default_slots(shard.pixels[0].numel()), judging.FLOOR)
    points = Crafting(source, attack, threat, shard, seed, rows, checkpoint).run(progress)
    passes = len(shard) * attack.tries * (attack.passes - 1)
    cost = Cost(forwards=passes, backwards=passes if attack.needs_grad else 0)
    return {"cost": cost.as_dict(), "tries": attack.tries}, {"ids": shard.ids, "points": points}


def judge(
    target: Target, threat: ThreatModel, shard: Dataset, points: Tensor, checkpoint: Checkpoint = NOTHING
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(clean-correct and per-try flips as lists; nothing to keep): a crafted set shown to one victim.

    A flip is an example that is correct on clean and wrong at the crafted point.
    """
    images, saved = shard.pixels, checkpoint.load() or {}
    correct, flips = saved.get("correct"), saved.get("flips", [])
    if correct is None:
        correct = torch.eq(target.judge.logits(images, shard.ids).argmax(1), shard.labels).tolist()
    for attempt in points[len(flips) :]:
        check_admissible(threat, images, attempt, shard.ids)
        wrong = torch.ne(target.judge.logits(attempt, shard.ids).argmax(1), shard.labels).tolist()
        flips.append([right and flipped for right, flipped in zip(correct, wrong, strict=True)])
        checkpoint.offer(partial(dict, correct=correct, flips=flips))
    checks = len(shard) * (len(points) + 1)
    return {"correct": correct, "flips": flips, "cost": Cost(checks=checks).as_dict()}, {}


def clean(
    target: Target, dataset: Dataset, device: torch.device | str, checkpoint: Checkpoint = NOTHING
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(clean-correct over a whole split, decoded part by part; nothing to keep)."""
    saved = checkpoint.load() or {"correct": 0, "seen": 0}
    correct, seen = saved["correct"], saved["seen"]
    for part in dataset.select(range(seen, len(dataset))).batches(SHARD) if seen < len(dataset) else ():
        here = part.on(device)
        correct += int(torch.eq(target.judge.logits(here.pixels, here.ids).argmax(1), here.labels).sum())
        seen += len(part)
        checkpoint.offer(partial(dict, correct=correct, seen=seen))
    return {"correct": correct, "n": len(dataset), "cost": Cost(checks=len(dataset)).as_dict()}, {}
