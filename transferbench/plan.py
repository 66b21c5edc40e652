"""Suite -> jobs: a pure function. No data, weights or clock are looked at; `--dry-run` prints what it returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from transferbench.suites import Row, Suite
from transferbench.types import SHARD, InputError, Job


class Shown(NamedTuple):
    """One shard of a crafted set and its judging: `source` is who made it, by id."""

    source: str
    craft: Job
    judge: Job


@dataclass(frozen=True)
class Measured:
    """The evaluation jobs whose results make one record: per chain its shards, crafted sets, clean accuracy."""

    name: str
    role: str
    seed: int
    dataset: str
    chains: dict[str, list[Job]]
    crafted: list[Shown] = field(default_factory=list)
    clean: Job | None = None

    def jobs(self) -> list[Job]:
        """All of them, inputs first."""
        found = [job for done in self.chains.values() for job in done]
        found += [job for shown in self.crafted for job in (shown.craft, shown.judge)]
        return found + ([self.clean] if self.clean is not None else [])

    @property
    def preprocessing(self) -> str:
        """What the files of the data set go through, as every job says."""
        return str(self.jobs()[0].spec.get("preprocessing", ""))

    def finished(self, results: Container[str]) -> dict[str, list[Job]]:
        """The chains of which every shard has a result, by name."""
        return {name: done for name, done in self.chains.items() if all(job.name in results for job in done)}


@dataclass(frozen=True)
class PlannedVictim:
    """One victim of a suite: how it is trained, from which source (its name), and how it is measured."""

    source: str
    train: Job
    measured: Measured

    @property
    def name(self) -> str:
        return self.measured.name


@dataclass(frozen=True)
class Plan:
    suite: Suite
    seeds: tuple[int, ...]
    victims: list[PlannedVictim]
    jobs: list[Job]


def shards(n: int) -> list[tuple[int, int]]:
    """(start, stop) of the shards of the first n examples: 256 consecutive positions each, whatever n."""
    return [(start, min(start + SHARD, n)) for start in range(0, n, SHARD)]


def plan(suite: Suite, seeds: tuple[int, ...]) -> Plan:
    """All jobs of a suite in an order in which inputs come first. No data, weights or clock are looked at."""
    training = suite.training
    if training is None:
        raise InputError(f"suite {suite.name} trains nothing: use it with eval")
    victims: list[PlannedVictim] = []
    ordered: dict[str, Job] = {}

    def add(job: Job) -> Job:
        return ordered.setdefault(job.name, job)

    for seed in seeds:
        sources: dict[str, PlannedVictim] = {}
        for row in training.sources:
            name = f"{training.source_dataset}-{row.name}-s{seed}"
            sources[row.name] = _planned(suite, row, name, "source", seed, None, add)
        rows = [
            _planned(
                suite,
                row,
                f"{row.name}-s{seed}",
                "victim",
                seed,
                sources[row.source],
                add,
                list(sources.values()),
            )
            for row in training.rows
        ]
        victims += [*sources.values(), *rows]
    return Plan(suite, seeds, victims, list(ordered.values()))


def _planned(
    suite: Suite,
    row: Row,
    name: str,
    role: str,
    seed: int,
    source: PlannedVictim | None,
    add: Callable[[Job], Job],
    sources: Sequence[PlannedVictim] = (),
) -> PlannedVictim:
    """One victim's jobs. Sources go through the norms' chains only; the rest is measured on rows."""
    assert suite.training is not None
    training = suite.training
    dataset = training.target_dataset if source is not None else training.source_dataset
    seen = {"dataset": dataset}
    preprocessing = training.target_preprocessing if source is not None else training.source_preprocessing
    if preprocessing:
        seen["preprocessing"] = preprocessing
    spec = {
        "victim": name,
        "plugin": row.method,
        "settings": {**row.set, "seed": seed},
        **seen,
        "network": training.network,
        **({"shots": training.shots} if source is not None and training.shots is not None else {}),
    }
    trained = add(Job("train", f"train {name}", spec, (source.train.name,) if source is not None else ()))
    chains = [suite.protocol.chain(norm, eps) for norm, eps in suite.threats.items()]
    if source is not None:
        chains += suite.protocol.further_chains(dict(suite.threats)) + suite.protocol.curve_chains()
    chain_jobs = {
        chain.name: [
            add(
                Job(
                    "attack",
                    f"{name}: {chain.name}",
                    {"chain": chain.as_dict(), **seen, "start": start, "stop": stop, "seed": seed},
                    (trained.name,),
                )
            )
            for start, stop in shards(suite.n)
        ]
        for chain in chains
    }
    if source is None:
        return PlannedVictim("", trained, Measured(name, role, seed, dataset, chain_jobs))
    crafted = [
        Shown(made_by, add(craft), add(judge))
        for made_by, craft, judge in _crafted(suite, name, seed, seen, source, sources, trained)
    ]
    clean = add(Job("clean", f"{name}: clean", {**seen, "split": "test"}, (trained.name,)))
    return PlannedVictim(source.name, trained, Measured(name, role, seed, dataset, chain_jobs, crafted, clean))


def _crafted(
    suite: Suite,
    name: str,
    seed: int,
    seen: dict[str, str],
    own: PlannedVictim,
    sources: Sequence[PlannedVictim],
    trained: Job,
) -> Iterator[Shown]:
    """Source-only attacks and their control, shard by shard: crafted once per source, judged per victim.

    With `every_source`, what other sources make is shown as well: the transfer matrix.
    """
    only = suite.protocol.source_only
    if only is None:
        return
    others = [source for source in sources if source is not own] if only.every_source else []
    for source in (own, *others):
        # Random signs are the same whoever draws them: the control is shown once.
        for part in (only.attack, *only.also, *((only.control,) if source is own else ())):
            for start, stop in shards(suite.n):
                piece = {**seen, "start": start, "stop": stop, "norm": only.norm, "eps": only.eps}
                spec = {"attack": part.spec().as_dict(), "seed": seed, **piece}
                craft = Job("craft", f"{source.name}: {part.id}", spec, (source.train.name,))
                label = f"{name}: {part.id}" if source is own else f"{name}: {part.id} of {source.name}"
                yield Shown(source.name, craft, Job("judge", label, piece, (trained.name, craft.name)))


def describe(planned: Plan) -> list[str]:
    """The plan in lines, one per job: kind, label, size and name; then the totals. What --dry-run prints."""
    lines = [f"{job.kind:<7}{job.label:<44}{_size(job):>24}  {job.name[:12]}" for job in planned.jobs]
    kinds = Counter(job.kind for job in planned.jobs)
    total = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return [
        *lines,
        f"{len(planned.jobs)} jobs ({total}) for {len(planned.victims)} networks, seeds {planned.seeds}",
    ]


def _size(job: Job) -> str:
    spec = job.spec
    if job.kind == "train":
        return f"{spec['settings'].get('steps', 'default')} steps"
    if job.kind == "clean":
        return "whole test split"
    return f"{spec['stop'] - spec['start']} examples"
