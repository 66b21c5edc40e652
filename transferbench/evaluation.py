"""`eval`: any victim on any data set, radii from its card. The record is the same as a suite's row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from transferbench import attacks, data, registry, suites
from transferbench.attacks.apgd import SCREEN
from transferbench.engine import reference
from transferbench.engine import selftest as active
from transferbench.leaderboard import build
from transferbench.pipeline import Reporter, Runner
from transferbench.plan import Measured, shards
from transferbench.recording import record_of, write_records
from transferbench.records import Record
from transferbench.suites import Suite
from transferbench.types import AttackSpec, Chain, InputError, Job, Norm, ThreatModel
from transferbench.victims import Victim
from transferbench.victims import load as load_victim

RADII: dict[str, dict[str, str]] = {
    "cifar10": {"Linf": "8/255", "L2": "0.5", "L1": "12"},
    "cifar100": {"Linf": "8/255", "L2": "0.5", "L1": "12"},
    "imagenet": {"Linf": "4/255", "L2": "2", "L1": "255"},
}
"""Radii by data set for victims whose card names none: those of E-AT. No norm's default serves another."""


@dataclass(frozen=True)
class Request:
    """What `eval` was asked. `attacks` replaces the suite's chain; `n` None means up to the suite's n."""

    model: str
    dataset: str | None = None
    norms: tuple[Norm, ...] = ("Linf", "L2", "L1")
    eps: dict[Norm, str] = field(default_factory=dict)
    attacks: tuple[str, ...] = ()
    source: str | None = None
    n: int | None = None
    seed: int = 0
    backend: str = "transferbench"


def check(request: Request) -> Suite:
    """Names and numbers, before any file is looked for. Returns the suite whose protocol is run."""
    suite = suites.load("eval")
    for norm, eps in request.eps.items():
        ThreatModel.parse(norm, eps)
        if norm not in request.norms:
            raise InputError(f"--eps names {norm}, which --norms leaves out: {','.join(request.norms)}")
    if request.n is not None and request.n < 1:
        raise InputError(f"--n {request.n}: ask for at least 1 example")
    if request.backend == "autoattack":
        for id in request.attacks:
            if id not in (*reference.STANDARD, "standard"):
                raise InputError(f"backend autoattack has no attack {id!r}: it runs standard, or any of its parts")
    for id in request.attacks if request.backend == "transferbench" else ():
        registry.find("attacks", id)
        for norm in request.norms:
            attack = attacks.build(AttackSpec.of(id), ThreatModel.parse(norm, request.eps.get(norm, "0.1")), 10)
            if attack.sees == "source":
                raise InputError(f"--attacks {id}: it attacks the source alone; name the source with --source instead")
    if request.dataset is not None:
        registry.find("data", request.dataset.partition(":")[0])
    return suite


def radii(request: Request, victim: Victim) -> dict[Norm, str]:
    """--eps, else the card's, else the data set's. InputError names the norm that has none."""
    chosen: dict[Norm, str] = {}
    defaults = RADII.get(victim.card.dataset, {})
    for norm in request.norms:
        eps = request.eps.get(norm) or victim.card.threats.get(norm) or defaults.get(norm)
        if eps is None:
            raise InputError(f"no radius for {norm}: {victim.id}'s card has none; give one with --eps {norm}=...")
        chosen[norm] = eps
    return chosen


@dataclass(frozen=True)
class Located:
    """Everything `eval` needs, found and checked before anything is written."""

    victim: Victim
    source: Victim | None
    dataset: str
    n: int
    chains: list[Chain]


def locate(request: Request, data_dir: Path | None, model_dir: Path | None) -> Located:
    """Load the models and the data. InputError where one is missing or they do not fit each other."""
    suite = check(request)
    victim = load_victim(request.model, model_dir)
    source = load_victim(request.source, model_dir) if request.source is not None else None
    dataset = request.dataset or victim.card.dataset
    chosen = radii(request, victim)
    test = data.load(dataset, "test", data_dir)
    for model in (victim, source):
        if model is not None and test.shape != tuple(model.card.input_shape):
            wanted = tuple(model.card.input_shape)
            raise InputError(f"{model.id} takes images of shape {wanted}, {dataset} has {test.shape}")
    if len(test.classes) != victim.num_classes:
        raise InputError(f"{victim.id} has {victim.num_classes} classes, {dataset} has {len(test.classes)}")
    n = request.n or min(suite.n, test.attackable or len(test))
    test.first(n)
    return Located(victim, source, dataset, n, _chains(request, suite, chosen))


def evaluate(request: Request, found: Located, runner: Runner, reporter: Reporter) -> Record:
    """Run what was located, write record and tables into the store's folder, return the record."""
    suite = check(request)
    measured = _jobs(request, suite, found)
    runner.run(measured.jobs(), reporter)
    at_n = suite.model_copy(update={"n": found.n})
    record = record_of(
        at_n,
        measured,
        found.victim.card,
        found.victim.sha256,
        found.source.card.dataset if found.source is not None else "",
        runner.results,
        runner.attacked(found.dataset, found.n),
        runner.device,
        None,
    )
    write_records(runner.store.root, [record])
    build.rebuild(runner.store.root)
    return record


def selftest(
    found: Located, seed: int, device: str, slots: int | None, data_dir: Path | None
) -> Iterator[tuple[str, int, int]]:
    """(threat, regions planted, regions found) per chain: engine/selftest.py on the located victim and data."""
    test = data.load(found.dataset, "test", data_dir).first(found.n)
    x, y, ids = (part.to(device) for part in (test.images, test.labels, test.ids))
    model = found.victim.to(device).model
    for chain in found.chains:
        planted = active.selftest(model, x, y, ids, [chain], seed, slots)
        yield str(chain.threat), planted.planted, planted.found[chain.name]


def _chains(request: Request, suite: Suite, chosen: dict[Norm, str]) -> list[Chain]:
    chains = []
    for norm, eps in chosen.items():
        chain = suite.protocol.chain(norm, eps)
        if request.attacks:
            ids = reference.STANDARD if request.attacks == ("standard",) else request.attacks
            chain = replace(chain, attacks=tuple(AttackSpec.of(id) for id in ids))
        if request.backend == "autoattack":
            # The screen is a step of our engine; the reference has its protocol alone.
            chain = replace(chain, attacks=tuple(spec for spec in chain.attacks if spec != SCREEN))
            reference.check(chain)
        chains.append(chain)
    return chains


def _jobs(request: Request, suite: Suite, found: Located) -> Measured:
    victim, source, dataset, n, chains = found.victim, found.source, found.dataset, found.n, found.chains
    common = {"victim": request.model, "dataset": dataset}
    chain_jobs = {
        chain.name: [
            Job(
                "attack",
                f"{victim.id}: {chain.threat}",
                {
                    **common,
                    "chain": chain.as_dict(),
                    "start": start,
                    "stop": stop,
                    "seed": request.seed,
                    "backend": request.backend,
                },
            )
            for start, stop in shards(n)
        ]
        for chain in chains
    }
    crafted: list[tuple[Job, Job]] = []
    only = suite.protocol.source_only
    linf = next((chain.threat for chain in chains if chain.threat.norm == "Linf"), None)
    if source is not None and only is not None and linf is not None:
        for part in (only.attack, only.control):
            for start, stop in shards(n):
                piece = {"dataset": dataset, "start": start, "stop": stop, "norm": "Linf", "eps": linf.eps.text}
                spec = {"victim": request.source, "attack": part.spec().as_dict(), "seed": request.seed, **piece}
                craft = Job("craft", f"{source.id}: {part.id}", spec)
                judge = Job("judge", f"{victim.id}: {part.id}", {"victim": request.model, **piece}, (craft.name,))
                crafted.append((craft, judge))
    return Measured(victim.id, "victim", request.seed, dataset, chain_jobs, crafted)
