"""The reference as a backend: pyautoattack runs the chain, and our judge decides.

The chain is run attack by attack, so that every fooled example is attributed to one. This changes no result, because
the reference also passes only the surviving examples to the next attack. Only its default of 100 iterations is
supported: the reference computes the step-size checkpoints in its constructor.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from transferbench.base import attack_parameters
from transferbench.base.attack_parameters import Defaults
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel
from transferbench.engine.chain import Target
from transferbench.engine.process_state import plain_process
from transferbench.engine.verdicts import ChainResult, Examples, Hits, OnSettled, VerdictTable

BATCH_SIZE = 250
"""The reference's default batch size."""

_APGD: Defaults = {"n_iter": 100, "restarts": 0, "large_radii": True, "eot": 1}
PARAMETERS: Mapping[str, Defaults] = {
    "apgd-ce": _APGD,
    "apgd-dlr": _APGD,
    "apgd-t": {"n_iter": 100, "targets": 0, "large_radii": True, "eot": 1},
    "fab": {"restarts": 5},
    "fab-t": {"targets": 9},
    "square": {"queries": 5000},
}
"""What of a specification reaches the reference's attacks, with the defaults; restarts and targets of 0 are the number
of the standard version. FAB and Square exist only in the reference."""

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The attacks of AutoAttack's standard version, in its order."""

VERSIONS: Mapping[str, tuple[str, ...]] = {
    "standard": STANDARD,
    "plus": (
        "apgd-ce:restarts=5:large_radii=no",
        "apgd-dlr:restarts=5:large_radii=no",
        "fab:restarts=5",
        "square",
        "apgd-t:targets=9:large_radii=no",
        "fab-t",
    ),
    "rand": ("apgd-ce:restarts=1:large_radii=no:eot=20", "apgd-dlr:restarts=1:large_radii=no:eot=20"),
}
"""AutoAttack's versions. `rand` is for randomised models: every gradient is the mean of 20 draws."""


def parse(texts: Sequence[str | AttackSpec]) -> tuple[AttackSpec, ...]:
    """The attacks in texts, each an attack with parameters or a version of AutoAttack (`rand`).

    InputError for what the reference does not have, a version beside something else, or an attack named twice.
    """
    whole = [text for text in texts if isinstance(text, str) and text.partition(":")[0] in VERSIONS]
    if whole and (len(texts) > 1 or whole[0] not in VERSIONS):
        raise InputError(
            f"{', '.join(VERSIONS)} are whole versions of AutoAttack: give one alone and without parameters, or name "
            "attacks"
        )
    parts = [part for text in texts for part in (VERSIONS.get(text, (text,)) if isinstance(text, str) else (text,))]
    specs = tuple(
        part if isinstance(part, AttackSpec) else attack_parameters.parse(part, PARAMETERS, "backend autoattack: ")
        for part in parts
    )
    if len({spec.id for spec in specs}) != len(specs):
        raise InputError("backend autoattack: an attack is named twice")
    check(specs)
    return specs


class _CountingModel(nn.Module):
    """The model with counts of the rows of its forward passes and of those with an input gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.model(x)
        self.forwards += len(x)
        # The reference's attacks differentiate w.r.t. the input, its checks do not.
        self.backwards += len(x) if x.requires_grad else 0
        return output


def check(specs: Sequence[AttackSpec], available: Mapping[str, Defaults] = PARAMETERS) -> None:
    """InputError when the reference (or its replay) cannot run the attacks: another attack, parameter or number of
    iterations."""
    for spec in specs:
        if spec.id not in available:
            raise InputError(f"backend autoattack has no attack {spec.id!r}: it runs {', '.join(available)}")
        ignored = sorted(dict(spec.params).keys() - available[spec.id].keys())
        if ignored:
            raise InputError(f"backend autoattack runs its own {spec.id}, which has no {', '.join(ignored)}")
        params: dict[str, Any] = dict(attack_parameters.complete(spec, available[spec.id]))
        if params.get("n_iter", 100) != 100:
            raise InputError("backend autoattack runs 100 iterations only: give no other n_iter")
        for name in ("restarts", "targets", "queries", "eot"):
            least = 0 if PARAMETERS[spec.id].get(name) == 0 else 1
            if params.get(name, least) < least:
                raise InputError(f"attack {spec.id}: {name}={params[name]} must be at least {least}")


def tries(spec: AttackSpec, threat: ThreatModel, num_classes: int) -> int:
    """The number of restarts or target classes, at most the number of other classes.

    InputError for DLR below 3 classes and targeted DLR below 4, where the reference stops with an IndexError.
    """
    least = {"apgd-t": 4, "apgd-dlr": 3}.get(spec.id, 2)
    if num_classes < least:
        raise InputError(
            f"backend autoattack: its {spec.id} needs {least} classes, the model has {num_classes}; use ours, or other "
            "attacks"
        )
    params = attack_parameters.complete(spec, PARAMETERS[spec.id])
    l1 = threat.norm == "L1"
    if "targets" in params:
        return min(int(params["targets"]) or (5 if l1 else 9), num_classes - 1)
    return int(params.get("restarts", 1)) or (5 if l1 else 1)


def configure(reference: Any, spec: AttackSpec, threat: ThreatModel, count: int) -> None:
    """Set what the specification sets in the reference's attacks."""
    params: dict[str, Any] = dict(attack_parameters.complete(spec, PARAMETERS[spec.id]))
    reference.apgd.n_restarts = count
    reference.apgd_targeted.n_target_classes = reference.fab.n_target_classes = count
    reference.fab.n_restarts = count if spec.id == "fab" else 1
    reference.square.n_queries = params.get("queries", 5000)
    if params.get("eot", 1) > 1:
        # Its check whether the model is randomised would advise what was asked for.
        reference.version = "rand"
    for apgd in (reference.apgd, reference.apgd_targeted):
        apgd.use_largereps = threat.norm == "L1" and params.get("large_radii", True)
        apgd.eot_iter = params.get("eot", 1)


def run_reference(
    target: Target,
    chain: Chain,
    examples: Examples,
    seed: int,
    on_progress: OnSettled | None = None,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> ChainResult:
    """`chain.run_chain` by the reference implementation, in batches of 250 rows by default.

    Its random starts depend on the batches. Its attacks cannot be interrupted: checkpoints are saved between attacks,
    and running out of memory is a FaultError.
    """
    from pyautoattack import AutoAttack

    check(chain.attacks)
    began, checked = time.perf_counter(), target.judge.checks
    model, threat = _CountingModel(target.judge.model), chain.threat
    x, y, ids = examples
    table = VerdictTable(examples, target.clean_logits(x, ids).argmax(1))
    rank = 0
    saved = checkpoint.load()
    if saved is not None:
        table.restore(saved["verdicts"])
        rank = saved["rank"]
    with plain_process():
        for spec in chain.attacks[len(table.by_attack) :]:
            count = tries(spec, threat, target.num_classes)
            reference: Any = AutoAttack(
                model,
                attacks=[spec.id],
                device=x.device,
                eps=float(threat.eps),
                norm=threat.norm,
                seed=seed,
                version="custom",
            )
            configure(reference, spec, threat, count)
            before = model.forwards, model.backwards
            at = table.robust
            if len(at):
                points, _ = reference.run_standard_evaluation(x[at], y[at], batch_size=target.batch_size or BATCH_SIZE)
                moved = ((points - x[at]).flatten(1).abs().amax(1) > 0).nonzero().flatten()
                at, points = at[moved], points[moved].float()
                judgement = target.judge(threat, x[at], points, y[at], ids[at]) if len(at) else None
                if judgement is not None:
                    hit = judgement.fooled
                    hits = Hits(points[hit], judgement.pred[hit], judgement.distance[hit], judgement.tie[hit])
                    table.add_hits(spec.id, [rank] * int(hit.sum()), at[hit], hits)
            spent = {"forwards": model.forwards - before[0], "backwards": model.backwards - before[1], "wasted": 0}
            table.close_attack(spec.id, count, spent)
            rank += count
            checkpoint.save({"verdicts": table.snapshot(), "rank": rank})
            if on_progress is not None:
                on_progress(len(x), len(table.robust))
    result = table.result(target.judge.checks - checked, time.perf_counter() - began)
    result.eot = tuple(int(dict(spec.params).get("eot", 1)) for spec in chain.attacks)
    return result
