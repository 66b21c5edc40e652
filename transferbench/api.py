"""evaluate(): any nn.Module with [0,1] inputs, in three lines; and the Report it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from transferbench.attacks.apgd import SCREEN
from transferbench.base.errors import FaultError, InputError
from transferbench.base.results import Cost
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel
from transferbench.data import Dataset
from transferbench.engine import preflight
from transferbench.engine.chain import Target, run_chain
from transferbench.engine.reference import STANDARD, run_reference, unchanged_process
from transferbench.engine.reference import check as check_reference
from transferbench.engine.replay import REPLAYED, run_replay
from transferbench.engine.verdicts import ChainResult
from transferbench.jobs import kinds
from transferbench.jobs.stored import run_stored
from transferbench.models.features import Penultimate, find_layers
from transferbench.models.victims import Victim
from transferbench.results.assemble import any_of

if TYPE_CHECKING:
    import pandas as pd

SOURCE_ONLY = ("pretrained-neuron", "random-sign")
"""The attack that holds the source alone, and its noise control: 8 tries each by default."""

Threats = Mapping[str, str | float | int] | Sequence[tuple[str, str | float | int]]


@dataclass
class TotalCost(Cost):
    """All chains together; `by_attack` has one row per (threat, attack): tries, broke, standing, passes.

    `checks` also holds the pre-flight, its backwards too, and what the source-only attack's points were judged by; what
    made those points went through the source, not through the model, and is not counted.
    """

    by_attack: pd.DataFrame | None = None


@dataclass(frozen=True)
class Report:
    """What an evaluation found. Rates are fractions of all n.

    `clean`; `robust` by threat; `union` over threats, None unless each norm has one radius. `verdicts`: one row
    per (example, threat), clean-wrong ones included, with the columns example (position), threat, fooled,
    attack (`clean` for the clean-wrong, empty for survivors), try, pred, distance, tie. `x_adv` by threat: n
    rows, the clean image where nothing was found. `source_only`, where a source was given: one row per Linf
    radius for the attack that holds the source alone and one for its noise control, with the columns threat,
    attack, tries, flipped (examples that were correct and any of the tries flipped), correct, n. `flags`: see
    engine.checks.FLAGS.
    """

    n: int
    clean: float
    robust: dict[str, float]
    union: float | None
    verdicts: pd.DataFrame
    x_adv: dict[str, Tensor]
    cost: TotalCost
    source_only: pd.DataFrame | None = None
    flags: tuple[str, ...] = field(default=())


def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threats: Threats,
    attacks: Sequence[str] = ("apgd-ce", "apgd-t"),
    n_iter: int = 100,
    seed: int = 0,
    screen: bool = True,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    ids: Tensor | None = None,
    backend: str = "transferbench",
    replay: bool = False,
    source: nn.Module | Victim | None = None,
    store: str | Path | None = None,
) -> Report:
    """Attack a model that is in eval mode on images x [n, ...] in [0,1] with labels y [n].

    `threats` is {"Linf": "8/255", "L2": 0.5} or a list of (norm, eps) for several radii of one norm, which are
    then named `Linf:8/255`. `ids` int64 [n] key the random starts (0..n-1 by default), `batch_size` is rows in
    flight: neither it nor the order changes a verdict. `screen` puts 10 APGD iterations at the target radius
    before the L1 chain. `backend="autoattack"` lets pyautoattack do it, with `attacks=("standard",)` in its full
    standard version; `replay` runs our attacks on the starts,
    batches (`batch_size`) and order of tries that pyautoattack would have, without screen or early exit. `source`
    is the public network the model was fine-tuned from (its own classes may be others): the attack that holds it
    alone is made and shown to the model, beside as many random signs. `store` is a folder that makes the
    evaluation resumable: what it holds of the same model, images, threats and seed is not run again. The model,
    the tensors and the random states are as before afterwards.

    Raises InputError for what engine/checks.py refuses, FaultError when a logit stops being finite.
    """
    x, y, clamped = preflight.check_examples(x, y)
    if backend == "autoattack" and replay:
        raise InputError("replay runs our attacks on the reference's starts: give it without backend='autoattack'")
    plain = backend == "autoattack" or replay
    chains = _chains(threats, attacks, n_iter, screen and not plain)
    if backend not in ("transferbench", "autoattack"):
        raise InputError(f"unknown backend {backend!r}: use transferbench or autoattack")
    if plain:
        for chain in chains.values():
            check_reference(chain, REPLAYED if replay else STANDARD)
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size={batch_size} must be at least 1")
    where = torch.device(device) if device is not None else x.device
    x, y = x.to(where), y.to(where)
    ids = torch.arange(len(x)) if ids is None else ids
    if ids.shape != y.shape or len(ids.unique()) != len(ids) or ids.is_floating_point():
        raise InputError(f"ids must be {len(x)} distinct whole numbers")
    ids = ids.to(device=where, dtype=torch.int64)
    if store is not None and replay:
        raise InputError("replay goes through all examples at once and cannot be stored: leave store or replay out")
    if source is not None and not any(chain.threat.norm == "Linf" for chain in chains.values()):
        raise InputError("source: the source-only attack is defined in Linf: name a Linf threat, or leave source out")
    run = run_reference if backend == "autoattack" else run_replay if replay else run_chain
    with unchanged_process():
        target = Target.prepare(model, x, y, batch_size)
        examples = Dataset("given", "test", x, y, ids, tuple(map(str, range(target.num_classes))))
        if store is not None:
            results = run_stored(Path(store), target, chains, examples, seed, backend)
        else:
            results = {name: run(target, chain, x, y, ids, seed) for name, chain in chains.items()}
        before = target.judge.checks
        shown = _source_only(source, target, chains, examples, seed) if source is not None else None
        aside = target.preflight + target.judge.checks - before
    flags = {*target.flags, *(["clamped-input"] if clamped else [])}
    correct = sum(verdict.attack != "clean" for verdict in next(iter(results.values())).verdicts)
    if preflight.at_chance(correct, len(x), target.num_classes):
        flags.add("accuracy-at-chance")
    if any(preflight.gradients_masked(result.by_attack) for result in results.values()):
        flags.add("gradients-masked")
    return _report(len(x), correct, chains, results, shown, tuple(sorted(flags)), aside)


def _chains(threats: Threats, attacks: Sequence[str], n_iter: int, screen: bool) -> dict[str, Chain]:
    """Chains by the name of their threat: the norm for a mapping, `norm:eps` for a list."""
    named = isinstance(threats, Mapping)
    pairs = list(threats.items()) if isinstance(threats, Mapping) else list(threats)
    if not pairs or not attacks:
        raise InputError("give at least one threat and one attack")
    with_iterations = ("apgd-ce", "apgd-t", "apgd-dlr")
    ids = STANDARD if tuple(attacks) == ("standard",) else tuple(attacks)
    specs = tuple(AttackSpec.of(id, n_iter=n_iter) if id in with_iterations else AttackSpec.of(id) for id in ids)
    chains: dict[str, Chain] = {}
    for norm, eps in pairs:
        threat = ThreatModel.parse(norm, eps)
        name = threat.norm if named else str(threat)
        if name in chains:
            raise InputError(f"threat {name} is given twice")
        first = (SCREEN,) if screen and threat.norm == "L1" and "apgd-ce" in attacks else ()
        chains[name] = Chain(name, threat, first + specs)
    return chains


def _source_only(
    source: nn.Module | Victim, target: Target, chains: dict[str, Chain], examples: Dataset, seed: int
) -> pd.DataFrame:
    """The source-only attack and its noise control at every Linf radius, counted the same way (any of k)."""
    import pandas as pd

    network = source.model if isinstance(source, Victim) else source
    preflight.check_model(network, examples.images[:16], None)
    penultimate = source.penultimate if isinstance(source, Victim) else Penultimate(network, find_layers(network))
    rows: list[dict[str, Any]] = []
    for name, chain in chains.items():
        for id in SOURCE_ONLY if chain.threat.norm == "Linf" else ():
            made, tensors = kinds.craft(penultimate, AttackSpec.of(id), chain.threat, examples, seed, target.batch_size)
            judged, _ = kinds.judge(target, chain.threat, examples, tensors["points"])
            counts = {"flipped": sum(any_of([judged])), "correct": sum(judged["correct"]), "n": len(examples)}
            rows.append({"threat": name, "attack": id, "tries": made["tries"], **counts})
    return pd.DataFrame(rows)


def _report(
    n: int,
    correct: int,
    chains: dict[str, Chain],
    results: dict[str, ChainResult],
    shown: pd.DataFrame | None,
    flags: tuple[str, ...],
    checks_aside: int,
) -> Report:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    cost, by_attack = TotalCost(checks=checks_aside), []
    robust: dict[str, float] = {}
    for name, result in results.items():
        for position, verdict in enumerate(result.verdicts):
            row = verdict._asdict()
            row |= {"example": position, "threat": name, "try": row.pop("rank")}
            rows.append(row)
        robust[name] = sum(not verdict.fooled for verdict in result.verdicts) / n
        cost.add(result.cost)
        by_attack += [{"threat": name, **part} for part in result.by_attack]
    cost.by_attack = pd.DataFrame(by_attack)
    columns = ["example", "threat", "fooled", "attack", "try", "pred", "distance", "tie"]
    norms = [chain.threat.norm for chain in chains.values()]
    union = None
    if len(set(norms)) == len(norms):
        standing = [[not verdict.fooled for verdict in result.verdicts] for result in results.values()]
        union = sum(map(all, zip(*standing, strict=True))) / n
        if union > min(robust.values()):
            raise FaultError("the union is above a norm's rate: verdicts are inconsistent")
    points = {name: result.points for name, result in results.items()}
    return Report(n, correct / n, robust, union, pd.DataFrame(rows, columns=columns), points, cost, shown, flags)
