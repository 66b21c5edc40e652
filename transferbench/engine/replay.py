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
from transferbench.base.specifications import Chain, Norm
from transferbench.engine.chain import Target
from transferbench.engine.pool import Progress
from transferbench.engine.reference import BATCH_SIZE, check, unchanged_process
from transferbench.engine.verdicts import ChainResult, Tally
from transferbench.store.checkpoint_file import NOTHING, Checkpoint

REPLAYED = ("apgd-ce", "apgd-t")


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
    progress: Progress | None = None,
    checkpoint: Checkpoint = NOTHING,
) -> ChainResult:
    """`evaluate.run_chain` with the reference's starts and batches; it is for comparisons and keeps nothing."""
    from pyautoattack.autopgd_base import L1_projection

    check(chain, REPLAYED)
    began, checked = time.perf_counter(), target.judge.checks
    model = target.judge.model
    tally, rank = Tally(x, y, ids, target.clean_logits(x, ids).argmax(1)), 0
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
                        tally.fooled(spec.id, ranks, hits, points, judged.pred, judged.distance, judged.tie)
                    left = left[~found.fooled]
                if progress is not None:
                    progress(len(x), len(tally.left))
            tally.attack_done(spec.id, attack.tries, {"forwards": rows, "backwards": rows, "wasted": 0})
            rank += attack.tries
    return tally.result(target.judge.checks - checked, time.perf_counter() - began)
