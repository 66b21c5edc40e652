"""Replay: our attacks with the reference's random numbers, batches and order of tries, to agree with it exactly.

The reference seeds the global generator once per attack and batch and draws each try's noise for the examples of that
batch that are still robust, so its starts depend on the batch size and on earlier tries. Replay does the same: a
barrier between tries, the original model, no early exit, no copy, no screen. It is for comparisons only.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from transferbench import attacks
from transferbench.attacks import Keys, lockstep
from transferbench.attacks.apgd_ball import BallAPGD
from transferbench.attacks.apgd_l1 import L1APGD
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.specifications import Chain
from transferbench.engine.chain import Target
from transferbench.engine.pool import OnProgress
from transferbench.engine.reference import BATCH_SIZE, check, unchanged_process
from transferbench.engine.verdicts import ChainResult, Examples, Hits, Tally
from transferbench.threats import L1Ball, LinfBall, LpBall

REPLAYED = ("apgd-ce", "apgd-t")


def global_draw(ball: LpBall, x: Tensor, keys: Keys) -> Tensor:
    """[B, ...]: the reference's noise, from the global generator on the CPU, whatever the device."""
    noise = 2 * torch.rand(x.shape) - 1 if isinstance(ball, LinfBall) else torch.randn(x.shape)
    if isinstance(ball, L1Ball):
        # The reference draws a start for each of its three radii and discards it: the stream moves on.
        for _ in range(3):
            torch.randn(x.shape)
    return noise.to(x.device)


def run_replay(
    target: Target,
    chain: Chain,
    examples: Examples,
    seed: int,
    on_progress: OnProgress | None = None,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> ChainResult:
    """`chain.run_chain` with the reference's starts and batches, for comparisons; nothing is checkpointed."""
    from pyautoattack.autopgd_base import L1_projection

    check(chain, REPLAYED)
    began, checked = time.perf_counter(), target.judge.checks
    model = target.judge.model
    x, y, ids = examples
    tally, rank = Tally(examples, target.clean_logits(x, ids).argmax(1)), 0
    with unchanged_process():
        for spec in chain.attacks:
            attack = attacks.build(spec, chain.threat, target.num_classes)
            assert isinstance(attack, BallAPGD | L1APGD)
            attack.draw = global_draw
            if isinstance(attack, L1APGD):
                # Equal up to 1e-6, but L1-APGD counts changed entries: only equal bits give equal trajectories.
                attack.correction = L1_projection
            rows = 0
            for batch in tally.left.split(target.batch_size or BATCH_SIZE):
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
                        points = found.fooling[found.fooled]
                        judged = target.judge(chain.threat, x[hits], points, y[hits], ids[hits])
                        ranks = [rank + attempt] * len(hits)
                        tally.fooled(spec.id, ranks, hits, Hits(points, judged.pred, judged.distance, judged.tie))
                    left = left[~found.fooled]
                if on_progress is not None:
                    on_progress(len(x), len(tally.left))
            tally.attack_done(spec.id, attack.tries, {"forwards": rows, "backwards": rows, "wasted": 0})
            rank += attack.tries
    return tally.result(target.judge.checks - checked, time.perf_counter() - began)
