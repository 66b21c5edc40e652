"""Suite -> jobs: a pure function. No data, weights or clock are looked at; `--dry-run` prints what it returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from transferbench.base.errors import InputError
from transferbench.base.specifications import SHARD, Chain, Scalar
from transferbench.jobs.job import Job
from transferbench.suites import Row, Source, Suite, Training


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
    """One victim of a suite: how it is trained, from which source (its name), and how it is measured.

    A source may be public: then nothing trains it. It may be measured by nothing, where the suite names no data for it.
    """

    source: str
    name: str
    train: Job | None
    measured: Measured | None

    @property
    def given(self) -> dict[str, str]:
        """What a job's specification says of it: the id of a public model; a trained one is its first input."""
        return {} if self.train is not None else {"victim": self.name}

    @property
    def inputs(self) -> tuple[str, ...]:
        return () if self.train is None else (self.train.name,)


@dataclass(frozen=True)
class Plan:
    suite: Suite
    seeds: tuple[int, ...]
    victims: list[PlannedVictim]
    jobs: list[Job]

    @property
    def measured(self) -> list[tuple[PlannedVictim, Measured]]:
        return [(victim, victim.measured) for victim in self.victims if victim.measured is not None]


def shards(n: int) -> list[tuple[int, int]]:
    """(start, stop) of the shards of the first n examples: 256 consecutive positions each, whatever n."""
    return [(start, min(start + SHARD, n)) for start in range(0, n, SHARD)]


def plan(suite: Suite, seeds: tuple[int, ...]) -> Plan:
    """All jobs of a suite in an order in which inputs come first. No data, weights or clock are looked at."""
    if not suite.training:
        raise InputError(f"suite {suite.name} trains nothing: use it with eval")
    victims: dict[str, PlannedVictim] = {}
    ordered: dict[str, Job] = {}
    for seed in seeds:
        for block in suite.training:
            planner = _Planner(suite, block, seed, ordered)
            sources = {}
            for source in block.sources:
                made = planner.source(source)
                # Two blocks may start from one source: it is trained and measured once, a public one for one seed.
                known = victims.setdefault(made.name, made)
                if known.measured is None:
                    known = victims[made.name] = made
                if made.train is not None and known != made:
                    raise InputError(f"suite {suite.name}: two blocks make different sources of the name {made.name}")
                sources[source.name] = known
            for row, source, name in block.pairs():
                victim = planner.row(row, name, sources[source.name], list(sources.values()))
                victims[victim.name] = victim
    return Plan(suite, seeds, list(victims.values()), list(ordered.values()))


class _Planner:
    """The jobs of one block's victims for one seed; every job is added once, inputs first."""

    def __init__(self, suite: Suite, block: Training, seed: int, ordered: dict[str, Job]) -> None:
        self.suite, self.block, self.seed, self.ordered = suite, block, seed, ordered

    def source(self, source: Source) -> PlannedVictim:
        """Sources go through the norms' chains only; the rest is measured on rows."""
        block, dataset = self.block, self.block.source_dataset
        seen = _seen(dataset or "", block.source_preprocessing)
        if source.model:
            public = PlannedVictim("", source.model, None, None)
            if dataset is None or not block.attack_sources:
                return public
            return self._measured(public, "source", dataset, seen, self._chains(), 0)
        name = f"{dataset}-{source.name}-s{self.seed}"
        network = source.network or block.network
        assert source.method is not None
        assert dataset is not None
        trained = self._train(name, source.method, source.set, seen, network, None)
        planned = PlannedVictim("", name, trained, None)
        return self._measured(planned, "source", dataset, seen, self._chains()) if block.attack_sources else planned

    def row(self, row: Row, name: str, source: PlannedVictim, sources: Sequence[PlannedVictim]) -> PlannedVictim:
        block, protocol = self.block, self.suite.protocol
        seen = _seen(block.target_dataset, block.target_preprocessing)
        trained = self._train(f"{name}-s{self.seed}", row.method, row.set, seen, row.network or block.network, source)
        chains = self._chains() + protocol.further_chains(dict(self.suite.threats)) + protocol.curve_chains()
        victim = PlannedVictim(source.name, f"{name}-s{self.seed}", trained, None)
        measured = self._measured(victim, "victim", block.target_dataset, seen, chains)
        assert measured.measured is not None
        measured.measured.crafted.extend(self._crafted(victim.name, seen, source, sources, trained))
        clean = self._add(Job("clean", f"{victim.name}: clean", {**seen, "split": "test"}, (trained.name,)))
        return replace(measured, measured=replace(measured.measured, clean=clean))

    def _add(self, job: Job) -> Job:
        return self.ordered.setdefault(job.name, job)

    def _chains(self) -> list[Chain]:
        return [self.suite.protocol.chain(norm, eps) for norm, eps in self.suite.threats.items()]

    def _train(
        self,
        name: str,
        method: str,
        settings: Mapping[str, Scalar],
        seen: dict[str, str],
        network: str | None,
        source: PlannedVictim | None,
    ) -> Job:
        shots = self.block.shots if source is not None else None
        spec = {
            "victim": name,
            "plugin": method,
            "settings": {**settings, "seed": self.seed},
            **seen,
            "network": network or "",
            **({"shots": shots} if shots is not None else {}),
            **({"source": source.name} if source is not None and source.train is None else {}),
            **({"untrained": True} if self.suite.untrained else {}),
        }
        return self._add(Job("train", f"train {name}", spec, source.inputs if source is not None else ()))

    def _measured(
        self,
        victim: PlannedVictim,
        role: str,
        dataset: str,
        seen: dict[str, str],
        chains: Sequence[Chain],
        seed: int | None = None,
    ) -> PlannedVictim:
        """With its jobs; `seed` where the attacks' is not the block's."""
        seed = self.seed if seed is None else seed
        jobs = {
            chain.name: [
                self._add(
                    Job(
                        "attack",
                        f"{victim.name}: {chain.name}",
                        {
                            **victim.given,
                            "chain": chain.as_dict(),
                            **seen,
                            "start": start,
                            "stop": stop,
                            "seed": seed,
                        },
                        victim.inputs,
                    )
                )
                for start, stop in shards(self.suite.n)
            ]
            for chain in chains
        }
        return replace(victim, measured=Measured(victim.name, role, seed, dataset, jobs))

    def _crafted(
        self,
        name: str,
        seen: dict[str, str],
        own: PlannedVictim,
        sources: Sequence[PlannedVictim],
        trained: Job,
    ) -> Iterator[Shown]:
        """Source-only attacks and their control, shard by shard: crafted once per source, judged per victim.

        With `every_source`, what other sources make is shown as well: the transfer matrix.
        """
        for only in self.suite.protocol.source_only:
            others = [source for source in sources if source is not own] if only.every_source else []
            for source in (own, *others):
                # Random signs are the same whoever draws them: the control is shown once.
                for part in (only.attack, *only.also, *((only.control,) if source is own else ())):
                    for start, stop in shards(self.suite.n):
                        piece = {**seen, "start": start, "stop": stop, "norm": only.norm, "eps": only.eps}
                        spec = {**source.given, "attack": part.spec().as_dict(), "seed": self.seed, **piece}
                        what = part.id if only.norm == "Linf" else f"{part.id}@{only.norm}"
                        craft = self._add(Job("craft", f"{source.name}: {what}", spec, source.inputs))
                        label = f"{name}: {what}" if source is own else f"{name}: {what} of {source.name}"
                        judge = self._add(Job("judge", label, piece, (trained.name, craft.name)))
                        yield Shown(source.name, craft, judge)


def _seen(dataset: str, preprocessing: str) -> dict[str, str]:
    """What a job's specification says of its images."""
    return {"dataset": dataset, **({"preprocessing": preprocessing} if preprocessing else {})}


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
