"""`eval`: any victim on any data set, radii from its card. The record is the same as a suite's row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from transferbench import attacks, data, suites
from transferbench.attacks.apgd import SCREEN
from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, Chain, Norm, ThreatModel
from transferbench.data import View
from transferbench.engine import reference
from transferbench.engine import selftest as active
from transferbench.engine.preflight import at_chance
from transferbench.jobs.job import Job
from transferbench.leaderboard import build, page
from transferbench.models.catalogue.classes import RADII
from transferbench.models.victims import Victim, canonical, fitted
from transferbench.models.victims import load as load_victim
from transferbench.results.records import Record, read_all
from transferbench.scheduling.backends.local import Reporter
from transferbench.scheduling.plan import Measured, Shown, shards
from transferbench.scheduling.scheduler import Runner
from transferbench.suites import Suite
from transferbench.workflows import gallery
from transferbench.workflows.records import record_of, write_records


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
    network: str | None = None
    download: bool = False
    allow_low_accuracy: bool = False

    @property
    def victim(self) -> str:
        """The model's id with the architecture that --network gives to a file."""
        if self.network is None:
            return self.model
        return f"file:{self.network}={self.model.removeprefix('file:')}"


def check(request: Request) -> Suite:
    """Names and numbers, before any file is looked for. Returns the suite whose protocol is run."""
    suite = suites.load("eval")
    for norm, eps in request.eps.items():
        ThreatModel.parse(norm, eps)
        if norm not in request.norms:
            raise InputError(f"--eps names {norm}, which --norms leaves out: {','.join(request.norms)}")
    if request.network is not None:
        registry.find("networks", request.network.partition(":")[0])
        if not request.model.startswith("file:"):
            raise InputError(f"--network is for weights in a file: write --model file:{request.model}")
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
            if attack.sees != "victim":
                raise InputError(f"--attacks {id}: it attacks the source alone; name the source with --source instead")
    if request.dataset is not None:
        registry.find("data", request.dataset.partition(":")[0])
    return suite


def radii(request: Request, victim: Victim) -> dict[Norm, str]:
    """--eps, else the card's, else the data set's. InputError names the norm that has none."""
    chosen: dict[Norm, str] = {}
    defaults = RADII.get(victim.card.dataset) or RADII.get(request.dataset or "", {})
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
    preprocessing: str
    n: int
    chains: list[Chain]


def locate(request: Request, data_dir: Path | None, model_dir: Path | None) -> Located:
    """Load the models and the data. InputError where one is missing or they do not fit each other."""
    suite = check(request)
    victim = load_victim(request.victim, model_dir, request.download)
    source = load_victim(request.source, model_dir, request.download) if request.source is not None else None
    dataset = request.dataset or victim.card.dataset
    if dataset == "unknown":
        raise InputError(f"model {request.model}: nothing says what it was trained on: name the data with --dataset")
    chosen = radii(request, victim)
    if request.download:
        data.download(dataset, data_dir)
    test = data.load(dataset, "test", data_dir, View.of(victim.card.preprocessing, victim.card.input_shape))
    source = None if source is None else fitted(source, test.shape)
    victim.check_fits(dataset, test.shape, test.classes)
    n = request.n or min(suite.n, test.attackable or len(test))
    test.first(n)
    return Located(victim, source, dataset, test.preprocessing, n, _chains(request, suite, chosen))


def evaluate(request: Request, found: Located, runner: Runner, reporter: Reporter) -> Record:
    """Run what was located, write record and tables into the store's folder, return the record.

    InputError, before any attack, where clean accuracy is not above chance (`allow_low_accuracy` goes on).
    """
    suite = check(request)
    if (runner.store.root / "records").is_dir():
        # The table is built of all records in the folder: one that cannot be read is noticed before the attack.
        read_all(runner.store.root)
    for name, model in ((request.victim, found.victim), (request.source, found.source)):
        if name is not None and model is not None:
            runner.executor.adopt(canonical(name, model), model)
    measured = _jobs(request, suite, found)
    _check_accuracy(request, found, runner, reporter)
    runner.run(measured.jobs(), reporter)
    runner.raise_failures()
    at_n = suite.model_copy(update={"n": found.n})
    record = record_of(
        at_n,
        measured,
        found.victim.card,
        found.victim.sha256,
        found.source.card.dataset if found.source is not None else "",
        runner.results,
        runner.executor.test(found.dataset, found.preprocessing).first(found.n),
        runner.place.keep,
        None,
    )
    write_records(runner.store.root, [record])
    examples = runner.executor.test(found.dataset, found.preprocessing).first(found.n)
    gallery.write(runner.store.root, measured, runner.results, examples)
    page.write(runner.store.root, build.rebuild(runner.store.root))
    return record


def selftest(
    found: Located, seed: int, device: str, batch_size: int | None, data_dir: Path | None
) -> Iterator[tuple[str, int, int]]:
    """(threat, regions planted, regions found) per chain: engine/selftest.py on the located victim and data."""
    test = data.load(found.dataset, "test", data_dir, View(found.preprocessing)).first(found.n).on(device)
    x, y, ids = test.pixels, test.labels, test.ids
    model = found.victim.to(device).model
    for chain in found.chains:
        planted = active.selftest(model, x, y, ids, [chain], seed, batch_size)
        yield str(chain.threat), planted.planted, planted.found[chain.name]


def _seen(found: Located) -> dict[str, str]:
    """The images of a job: the data set, and what its files go through if anything."""
    return {"dataset": found.dataset, **({"preprocessing": found.preprocessing} if found.preprocessing else {})}


def _check_accuracy(request: Request, found: Located, runner: Runner, reporter: Reporter) -> None:
    spec = {"victim": canonical(request.victim, found.victim), **_seen(found), "stop": found.n}
    clean = Job("clean", f"{found.victim.id}: clean", spec)
    runner.run([clean], reporter, here=True)
    runner.raise_failures()
    correct, n = runner.results[clean.name]["correct"], found.n
    if at_chance(correct, n, found.victim.num_classes) and not request.allow_low_accuracy:
        raise InputError(
            f"{found.victim.id} is right on {correct} of {n} images of {found.dataset}, no better than chance among "
            f"{found.victim.num_classes} classes: wrong order of classes, wrong normalisation, another data set or "
            "untrained weights? --allow-low-accuracy attacks it all the same"
        )


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
    victim, source, n, chains = found.victim, found.source, found.n, found.chains
    name = canonical(request.victim, victim)
    common = {"victim": name, **_seen(found)}
    chain_jobs = {
        chain.name: [
            Job(
                "attack",
                f"{victim.id}: {chain.name}",
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
    crafted: list[Shown] = []
    only = next(iter(suite.protocol.source_only), None)
    linf = next((chain.threat for chain in chains if chain.threat.norm == "Linf"), None)
    if source is not None and only is not None and linf is not None:
        for part in (only.attack, *only.also, only.control):
            for start, stop in shards(n):
                piece = {**_seen(found), "start": start, "stop": stop, "norm": "Linf", "eps": linf.eps.text}
                spec = {
                    "victim": canonical(request.source or "", source),
                    "attack": part.spec().as_dict(),
                    "seed": request.seed,
                    **piece,
                }
                craft = Job("craft", f"{source.id}: {part.id}", spec)
                judge = Job("judge", f"{victim.id}: {part.id}", {"victim": name, **piece}, (craft.name,))
                crafted.append(Shown(source.id, craft, judge))
    return Measured(victim.id, "victim", request.seed, found.dataset, chain_jobs, crafted)
