"""Replay: our attacks on the reference's own random numbers, batches and order of tries, to agree with it exactly.

The reference seeds the global generator once per attack and batch and draws each try's noise for whoever still
stands in that batch, so that its starts depend on the batch size and on who survived. Replay does the same: a
barrier between tries, the original model, no early exit, no copy, no screen. It exists to be compared.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from transferbench import attacks
from transferbench.attacks import Keys, lockstep
from transferbench.attacks.apgd_ball import BallAPGD
from transferbench.attacks.apgd_l1 import L1APGD
from transferbench.engine.evaluate import ChainResult, Target
from transferbench.engine.judge import Judged
from transferbench.engine.pool import Progress
from transferbench.engine.reference import check, unchanged_process
from transferbench.types import Chain, Cost, Norm, Verdict

BATCH_SIZE = 250
"""The reference's own default."""


def global_draw(norm: Norm, x: Tensor, keys: Keys) -> Tensor:
    """The reference's noise: from the global generator on the CPU, whatever the device."""
    noise = 2 * torch.rand(x.shape) - 1 if norm == "Linf" else torch.randn(x.shape)
    if norm == "L1":
        # The reference draws a start for each of its three radii and throws it away: the stream moves on.
        for _ in range(3):
            torch.randn(x.shape)
    return noise.to(x.device)


def run_replay(
    target: Target,
    chain: Chain,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    seed: int,
    slots: int | None = None,
    progress: Progress | None = None,
) -> ChainResult:
    """`evaluate.run_chain` with the reference's starts; `slots` is its batch size."""
    from pyautoattack.autopgd_base import L1_projection

    check(chain)
    began, checked = time.perf_counter(), target.judge.checks
    model, n_classes = target.judge.model, target.num_classes
    with torch.no_grad():
        clean_pred = torch.cat([model(part).argmax(1) for part in x.split(slots or BATCH_SIZE)])
    standing = torch.eq(clean_pred, y)
    points, cost, by_attack, first_rank = x.clone(), Cost(), [], 0
    verdicts = {
        place: Verdict(int(ids[place]), not right, "" if right else "clean", -1, int(clean_pred[place]), 0.0, False)
        for place, right in enumerate(standing.tolist())
    }

    def record(spec_id: str, rank: int, at: Tensor, judged: Judged, found: Tensor) -> None:
        for place in judged.fooled.nonzero().flatten().tolist():
            position = int(at[place])
            verdicts[position] = Verdict(
                int(ids[position]),
                True,
                spec_id,
                rank,
                int(judged.pred[place]),
                float(judged.distance[place]),
                bool(judged.tie[place]),
            )
            points[position], standing[position] = found[place], False

    with unchanged_process():
        for spec in chain.attacks:
            attack = attacks.build(spec, chain.threat, n_classes)
            assert isinstance(attack, BallAPGD | L1APGD)
            attack.draw = global_draw
            if isinstance(attack, L1APGD):
                # Equal up to 1e-6, but L1-APGD counts changed entries: only equal bits give equal trajectories.
                attack.correction = L1_projection
            rows, before = 0, int(standing.sum())
            for batch in standing.nonzero().flatten().split(slots or BATCH_SIZE):
                torch.manual_seed(seed)
                left = batch
                for attempt in range(attack.tries):
                    if len(left) == 0:
                        break
                    with torch.no_grad():
                        ranking = model(x[left])
                    found = lockstep.maximise(attack, model, x[left], y[left], left, ranking, attempt)
                    rows += len(left) * attack.passes
                    hits = left[found.fooled]
                    if len(hits):
                        hit_points = found.fooling[found.fooled]
                        judged = target.judge(chain.threat, x[hits], hit_points, y[hits], ids[hits])
                        record(spec.id, first_rank + attempt, hits, judged, hit_points)
                    left = left[~found.fooled]
                if progress is not None:
                    progress(len(x), int(standing.sum()))
            after = int(standing.sum())
            cost.add(Cost(forwards=rows, backwards=rows))
            by_attack.append(
                {
                    "attack": spec.id,
                    "tries": attack.tries,
                    "broke": before - after,
                    "standing": after,
                    "forwards": rows,
                    "backwards": rows,
                    "wasted": 0,
                }
            )
            first_rank += attack.tries
    cost.checks, cost.seconds = target.judge.checks - checked, time.perf_counter() - began
    return ChainResult([verdicts[place] for place in range(len(x))], points, cost, by_attack)
