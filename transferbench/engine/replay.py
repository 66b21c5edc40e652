"""Replay: our attacks with the reference's random numbers, batches and order of tries, so that results agree exactly.

The reference seeds the global generator once per attack and batch, and draws each try's noise for the examples of the
batch that are still robust, so its starts depend on the batch size and on earlier tries. Replay does the same: one try
after the other, on the original model, without early exit, search model or screen. It is for comparisons only.
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
from transferbench.engine.process_state import plain_process
from transferbench.engine.reference import BATCH_SIZE, check
from transferbench.engine.verdicts import ChainResult, Examples, Hits, OnSettled, VerdictTable
from transferbench.threats import L1Ball, LinfBall, LpBall

REPLAYED = {"apgd-ce": {"n_iter": 100, "restarts": 0}, "apgd-t": {"n_iter": 100, "targets": 0}}
"""The attacks that can be replayed, with their parameters."""


def global_draw(ball: LpBall, x: Tensor, keys: Keys) -> Tensor:
    """[B, ...]: the reference's noise, from the global generator on the CPU, whatever the device."""
    noise = 2 * torch.rand(x.shape) - 1 if isinstance(ball, LinfBall) else torch.randn(x.shape)
    if isinstance(ball, L1Ball):
        # The reference draws and discards one start for each of its three radii, which advances the generator.
        for _ in range(3):
            torch.randn(x.shape)
    return noise.to(x.device)


def global_start(ball: LpBall, x: Tensor, keys: Keys) -> Tensor:
    """[B, ...]: the reference's random start in Linf and L2."""
    return ball.start_from_noise(x, global_draw(ball, x, keys))


def run_replay(
    target: Target,
    chain: Chain,
    examples: Examples,
    seed: int,
    on_progress: OnSettled | None = None,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> ChainResult:
    """`chain.run_chain` with the reference's random starts and batches, without checkpoints."""
    from pyautoattack.autopgd_base import L1_projection

    check(chain.attacks, REPLAYED)
    began, checked = time.perf_counter(), target.judge.checks
    model = target.judge.model
    x, y, ids = examples
    table, rank = VerdictTable(examples, target.clean_logits(x, ids).argmax(1)), 0
    with plain_process():
        for spec in chain.attacks:
            attack = attacks.build(spec, chain.threat, target.num_classes)
            assert isinstance(attack, BallAPGD | L1APGD)
            if isinstance(attack, L1APGD):
                attack.draw = global_draw
                # Equal up to 1e-6, but L1-APGD counts changed entries: only equal bits lead to equal trajectories.
                attack.correction = L1_projection
            else:
                attack.start_point = global_start
            rows = 0
            for batch in table.robust.split(target.batch_size or BATCH_SIZE):
                torch.manual_seed(seed)
                robust = batch
                for attempt in range(attack.tries):
                    if len(robust) == 0:
                        break
                    ranking = lockstep.logits(model, x[robust])
                    result = lockstep.maximise(attack, model, x[robust], y[robust], robust, ranking, attempt)
                    rows += len(robust) * attack.passes
                    at = robust[result.fooled]
                    if len(at):
                        points = result.fooling[result.fooled]
                        judgement = target.judge(chain.threat, x[at], points, y[at], ids[at])
                        hits = Hits(points, judgement.pred, judgement.distance, judgement.tie)
                        table.add_hits(spec.id, [rank + attempt] * len(at), at, hits)
                    robust = robust[~result.fooled]
                if on_progress is not None:
                    on_progress(len(x), len(table.robust))
            table.close_attack(spec.id, attack.tries, {"forwards": rows, "backwards": rows, "wasted": 0})
            rank += attack.tries
    done = table.result(target.judge.checks - checked, time.perf_counter() - began)
    done.eot = (1,) * len(chain.attacks)
    return done
