"""The reference as a backend: pyautoattack runs the chain, our judge counts.

It runs attack by attack, so that every broken example is attributed; the reference itself gives each attack
the examples that the ones before left standing, so this changes nothing. Its fixed 100 iterations are the only
ones it does right (its checkpoint table is made in the constructor).
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transferbench import attacks
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel
from transferbench.engine.chain import Target
from transferbench.engine.pool import OnProgress
from transferbench.engine.verdicts import ChainResult, Examples, Hits, Tally

BATCH_SIZE = 250
"""The reference's own default."""

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
"""AutoAttack's standard version, in its order. FAB-T and Square are the reference's alone."""


class _Counting(nn.Module):
    """The model with a count of rows, forward and with a gradient wanted."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.model(x)
        self.forwards += len(x)
        # Its attacks differentiate w.r.t. their input; its own checks only forward.
        self.backwards += len(x) if x.requires_grad else 0
        return output


@contextmanager
def unchanged_process() -> Iterator[None]:
    """Random states and the tracer as before: the reference seeds globally and calls sys.settrace(None)."""
    tracer, python, numpy = sys.gettrace(), random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            sys.settrace(tracer)
            random.setstate(python)
            np.random.set_state(numpy)


def check(chain: Chain, available: Sequence[str] = STANDARD) -> None:
    """InputError when the chain is not one that the reference (or its replay) can run as asked."""
    for spec in chain.attacks:
        if spec.id not in available:
            raise InputError(f"backend autoattack has no attack {spec.id!r}: it runs {', '.join(available)}")
        if dict(spec.params).get("n_iter", 100) != 100:
            raise InputError("backend autoattack runs 100 iterations only: give no other n_iter")


def _tries(spec: AttackSpec, threat: ThreatModel, num_classes: int) -> int:
    """Restarts or target classes as in the standard version, targets capped by the classes.

    InputError where the reference would stop with an IndexError: targeted DLR below 4 classes.
    """
    if spec.id == "apgd-t" and num_classes < 4:
        raise InputError(f"backend autoattack: its apgd-t needs 4 classes, the model has {num_classes}; use ours")
    if spec.id == "square":
        return 1
    if spec.id == "fab-t":
        return min(9, num_classes - 1)
    return attacks.build(spec, threat, num_classes).tries


def run_reference(
    target: Target,
    chain: Chain,
    examples: Examples,
    seed: int,
    on_progress: OnProgress | None = None,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> ChainResult:
    """`chain.run_chain` by the reference implementation, 250 rows a batch by default.

    Its random starts depend on its batches, and its attacks cannot be interrupted: the checkpoint holds whole attacks,
    and running out of memory is a FaultError.
    """
    from pyautoattack import AutoAttack

    check(chain)
    began, checked = time.perf_counter(), target.judge.checks
    model, threat = _Counting(target.judge.model), chain.threat
    x, y, ids = examples
    tally = Tally(examples, target.clean_logits(x, ids).argmax(1))
    rank = 0
    saved = checkpoint.load()
    if saved is not None:
        tally.restore(saved["tally"])
        rank = saved["rank"]
    with unchanged_process():
        for spec in chain.attacks[len(tally.by_attack) :]:
            tries = _tries(spec, threat, target.num_classes)
            runner: Any = AutoAttack(
                model,
                attacks=[spec.id],
                device=x.device,
                eps=float(threat.eps),
                norm=threat.norm,
                seed=seed,
                version="custom",
            )
            runner.apgd.n_restarts = runner.apgd_targeted.n_target_classes = runner.fab.n_target_classes = tries
            runner.fab.n_restarts = 1
            runner.apgd.use_largereps = runner.apgd_targeted.use_largereps = threat.norm == "L1"
            before = model.forwards, model.backwards
            at = tally.left
            if len(at):
                found, _ = runner.run_standard_evaluation(x[at], y[at], batch_size=target.batch_size or BATCH_SIZE)
                moved = ((found - x[at]).flatten(1).abs().amax(1) > 0).nonzero().flatten()
                at, found = at[moved], found[moved].float()
                judged = target.judge(threat, x[at], found, y[at], ids[at]) if len(at) else None
                if judged is not None:
                    hit = judged.fooled
                    ranks = [rank] * int(hit.sum())
                    hits = Hits(found[hit], judged.pred[hit], judged.distance[hit], judged.tie[hit])
                    tally.fooled(spec.id, ranks, at[hit], hits)
            spent = {"forwards": model.forwards - before[0], "backwards": model.backwards - before[1], "wasted": 0}
            tally.attack_done(spec.id, tries, spent)
            rank += tries
            checkpoint.save({"tally": tally.snapshot(), "rank": rank})
            if on_progress is not None:
                on_progress(len(x), len(tally.left))
    return tally.result(target.judge.checks - checked, time.perf_counter() - began)
