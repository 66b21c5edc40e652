"""Suite -> jobs, from the suite, its seeds and its public sources' cards. `--dry-run` prints what it returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from transferbench import data
from transferbench.base.corruptions import CorruptionBenchmark
from transferbench.base.dataset_id import DatasetId
from transferbench.base.errors import InputError
from transferbench.base.ids import with_seed
from transferbench.base.results import AttackResult
from transferbench.base.specifications import SHARD, AttackSpec, Chain, Scalar
from transferbench.data import View
from transferbench.data.preprocessing import Preprocessing
from transferbench.jobs.attack import AttackJob, EngineName
from transferbench.jobs.clean import CleanJob
from transferbench.jobs.correct import CorrectJob
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.job import Job, Results
from transferbench.jobs.networks import NetworkReference, PublicNetwork, TrainedNetwork
from transferbench.jobs.train import TrainJob
from transferbench.models import networks, victims
from transferbench.scheduling.crafted_plan import (
    AttackersSource,
    CraftedShard,
    QueriedShard,
    queried_shards,
    source_only_shards,
)
from transferbench.suites import Source, Suite, SuiteRow, Training

J = TypeVar("J", bound=Job[Any])


class CorruptedImages(NamedTuple):
    """The images of one corruption at one severity, a part of a benchmark, and the job that classifies them."""

    benchmark: CorruptionBenchmark
    corruption: str
    severity: int
    job: CorrectJob


@dataclass(frozen=True)
class Evaluation:
    """The evaluation jobs whose results make one record: the shards of each chain, crafted sets, clean accuracy,
    corrupted images. `clean_bits` is for an evaluation without chains, or whose chains attack fewer than the n
    examples; otherwise the chains' clean predictions are the record's."""

    victim: str
    role: str
    seed: int
    dataset: str
    preprocessing: str
    network: NetworkReference
    chains: dict[str, list[AttackJob]]
    crafted: list[CraftedShard] = field(default_factory=list)
    clean: CleanJob | None = None
    clean_bits: CorrectJob | None = None
    corrupted: list[CorruptedImages] = field(default_factory=list)
    queried: list[QueriedShard] = field(default_factory=list)

    def jobs(self) -> list[Job[Any]]:
        """All of them, inputs first."""
        jobs: list[Job[Any]] = [job for shards in self.chains.values() for job in shards]
        jobs += [job for shard in self.crafted for job in (shard.craft, shard.judge)]
        jobs += [shard.job for shard in self.queried]
        jobs += [job for job in (self.clean, self.clean_bits) if job is not None]
        jobs += [part.job for part in self.corrupted]
        # A universal delta is the same job for every shard.
        return list({job.name: job for job in jobs}.values())

    def finished_chains(self, results: Container[str]) -> dict[str, list[AttackJob]]:
        """The chains of which every shard has a result, by name."""
        return {name: shards for name, shards in self.chains.items() if all(job.name in results for job in shards)}

    def has_record(self, results: Container[str]) -> bool:
        """Whether there is enough for a record: a finished chain, and which of the n clean images are correct."""
        return bool(self.finished_chains(results)) and (self.clean_bits is None or self.clean_bits.name in results)

    def chain_results(self, results: Results) -> dict[str, list[AttackResult]]:
        """The results of the finished chains, in the examples' order.

        A network whose answers depend on its batch is attacked in one job (AttackJob.adapted), the result of all of
        its shards.
        """
        finished = self.finished_chains(results)
        return {name: distinct([results.of(job) for job in shards]) for name, shards in finished.items()}

    def crafted_sets(self) -> list[list[CraftedShard]]:
        """The shards of each crafted set."""
        sets: dict[tuple[str, str, AttackSpec], list[CraftedShard]] = {}
        for shard in self.crafted:
            sets.setdefault((shard.source, shard.craft.threat.norm, shard.craft.attack), []).append(shard)
        return list(sets.values())

    def queried_sets(self) -> list[list[QueriedShard]]:
        """The shards of each query attack, and of each control."""
        sets: dict[tuple[str, str, AttackSpec, bool], list[QueriedShard]] = {}
        for shard in self.queried:
            key = shard.source, shard.job.threat.norm, shard.job.attack, shard.is_control
            sets.setdefault(key, []).append(shard)
        return list(sets.values())


def distinct(shards: Sequence[AttackResult]) -> list[AttackResult]:
    """The results without repetitions, by their keys.

    Where one is of all examples at one batch size, shards that were attacked before that was found count no more.
    """
    together = [shard for shard in shards if shard.batch is not None]
    return list({shard.key: shard for shard in together or shards}.values())


@dataclass(frozen=True)
class PlannedVictim:
    """One network of a suite: how it is trained (None: it is public), the id of its source, how it is evaluated.

    A public source is not evaluated where the suite names no data for it.
    """

    source: str
    network: NetworkReference
    evaluation: Evaluation | None

    @property
    def name(self) -> str:
        return self.network.id

    @property
    def train(self) -> TrainJob | None:
        return next(iter(self.network.jobs), None)


@dataclass(frozen=True)
class Plan:
    suite: Suite
    seeds: tuple[int, ...]
    victims: list[PlannedVictim]
    jobs: list[Job[Any]]

    @property
    def evaluations(self) -> list[tuple[PlannedVictim, Evaluation]]:
        return [(victim, victim.evaluation) for victim in self.victims if victim.evaluation is not None]


def shards(n: int) -> list[tuple[int, int]]:
    """(start, stop) of the shards of the first n examples: SHARD consecutive positions each, whatever n."""
    return [(start, min(start + SHARD, n)) for start in range(0, n, SHARD)]


@dataclass(frozen=True)
class Images:
    """The images of an evaluation: the first n of a data set's test split (`stratified`: of each class in turn), with
    what an image file goes through."""

    dataset: str
    preprocessing: str
    n: int
    stratified: bool = False

    def part(self, start: int, stop: int) -> ImagesInput:
        return ImagesInput(self.dataset, self.preprocessing, start, stop, self.stratified)

    def shards(self) -> list[ImagesInput]:
        return [self.part(start, stop) for start, stop in shards(self.n)]


def attack_jobs(
    network: NetworkReference, chain: Chain, images: Images, seed: int, backend: EngineName = "transferbench"
) -> list[AttackJob]:
    """A chain's shards."""
    label, whole = f"{network.id}: {chain.name}", images.part(0, images.n)
    return [AttackJob(label, network, shard, chain, seed, backend, whole) for shard in images.shards()]


def plan(suite: Suite, seeds: tuple[int, ...]) -> Plan:
    """All jobs of a suite, inputs first. Neither data nor the clock are looked at."""
    if not suite.training:
        raise InputError(f"suite {suite.name} trains nothing: use it with eval")
    victims: dict[str, PlannedVictim] = {}
    jobs: dict[str, Job[Any]] = {}
    for seed in seeds:
        for block in suite.training:
            planner = _Planner(suite, block, seed, jobs)
            sources = {}
            for source in block.sources:
                planned = planner.source(source)
                # Two blocks may start from one source: it is trained and evaluated once, a public one for one seed.
                known = victims.setdefault(planned.name, planned)
                if known.evaluation is None:
                    known = victims[planned.name] = planned
                if planned.train is not None and known != planned:
                    raise InputError(
                        f"suite {suite.name}: two blocks make different sources of the name {planned.name}"
                    )
                sources[source.name] = known
            for row, source, name in block.pairs():
                victim = planner.row(row, name, source, sources[source.name], list(sources.values()))
                victims[victim.name] = victim
    return Plan(suite, seeds, list(victims.values()), list(jobs.values()))


class _Planner:
    """The jobs of one block's victims for one seed; every job is added once, inputs first."""

    def __init__(self, suite: Suite, block: Training, seed: int, jobs: dict[str, Job[Any]]) -> None:
        self.suite, self.block, self.seed, self.jobs = suite, block, seed, jobs

    def source(self, source: Source) -> PlannedVictim:
        """Sources go through the norms' chains only; further measurements are made on rows."""
        block, dataset = self.block, self.block.source_dataset
        view = self._view(block.source_preprocessing, dataset or "", source)
        images = Images(dataset or "", view, self.suite.n, self.suite.stratified)
        if source.model:
            public = PlannedVictim("", PublicNetwork(source.model), None)
            if dataset is None or not block.attack_sources:
                return public
            # Its attacks do not depend on the suite's seeds: it is one network for all of them.
            return self._evaluated(public, "source", images, self._chains(), seed=0)
        assert source.method is not None
        assert dataset is not None
        name = with_seed(f"{DatasetId.parse(dataset).name}-{source.name}", self.seed)
        train = self._train(name, source.method, source.set, images, source.network or block.network, None)
        planned = PlannedVictim("", TrainedNetwork(train), None)
        return self._evaluated(planned, "source", images, self._chains()) if block.attack_sources else planned

    def _view(self, preprocessing: str, dataset: str, source: Source) -> str:
        """What photographs go through: what the suite says, else what the source's images go through (data.View)."""
        if preprocessing or not dataset or not data.are_photographs(dataset):
            return preprocessing
        if source.model:
            card = victims.card(source.model)
            return View.of(card.preprocessing, card.input_shape).text
        shape = networks.input_shape(source.network or self.block.network or "")
        return View.of(self.block.source_preprocessing, shape).text

    def row(
        self, row: SuiteRow, name: str, block_source: Source, source: PlannedVictim, sources: Sequence[PlannedVictim]
    ) -> PlannedVictim:
        block, protocol = self.block, self.suite.protocol
        view = self._view(block.target_preprocessing, block.target_dataset, block_source)
        images = Images(block.target_dataset, view, self.suite.n, self.suite.stratified)
        name = with_seed(name, self.seed)
        train = self._train(name, row.method, row.set, images, row.network or block.network, source)
        chains = self._chains() + protocol.further_chains(dict(self.suite.threats)) + protocol.curve_chains()
        victim = self._evaluated(PlannedVictim(source.name, TrainedNetwork(train), None), "victim", images, chains)
        assert victim.evaluation is not None
        victim.evaluation.crafted.extend(self._crafted(victim.network, images, source, sources))
        held = AttackersSource(source.network, block.source_dataset or "")
        for measured in protocol.source_only:
            shards = queried_shards(victim.network, held, measured, images.shards(), self.seed)
            victim.evaluation.queried.extend(shard._replace(job=self._add(shard.job)) for shard in shards)
        whole = ImagesInput(images.dataset, images.preprocessing)
        clean = self._add(CleanJob(f"{victim.name}: clean", victim.network, whole))
        return replace(victim, evaluation=replace(victim.evaluation, clean=clean))

    def _add(self, job: J) -> J:
        return self.jobs.setdefault(job.name, job)  # type: ignore[return-value]

    def _chains(self) -> list[Chain]:
        return [self.suite.protocol.chain(norm, eps) for norm, eps in self.suite.threats.items()]

    def _train(
        self,
        name: str,
        method: str,
        settings: Mapping[str, Scalar],
        images: Images,
        network: str | None,
        source: PlannedVictim | None,
    ) -> TrainJob:
        return self._add(
            TrainJob(
                f"train {name}",
                victim=name,
                method=method,
                settings=tuple({**settings, "seed": self.seed}.items()),
                dataset=images.dataset,
                preprocessing=images.preprocessing,
                network=network or "",
                source=None if source is None else source.network,
                shots=None if source is None else self.block.shots,
                shots_rule="keyed" if source is None else self.block.shots_rule,
                untrained=self.suite.untrained,
            )
        )

    def _evaluated(
        self, victim: PlannedVictim, role: str, images: Images, chains: Sequence[Chain], seed: int | None = None
    ) -> PlannedVictim:
        """The victim with its jobs; `seed` where the attacks' is not the block's."""
        seed, network = self.seed if seed is None else seed, victim.network
        attacked = replace(images, n=self.suite.attacked_by_chains)
        jobs = {chain.name: [self._add(job) for job in attack_jobs(network, chain, attacked, seed)] for chain in chains}
        evaluation = Evaluation(victim.name, role, seed, images.dataset, images.preprocessing, network, jobs)
        if attacked != images:
            clean = self._add(CorrectJob(f"{victim.name}: clean images", network, images.part(0, images.n)))
            evaluation = replace(evaluation, clean_bits=clean)
        return replace(victim, evaluation=evaluation)

    def _crafted(
        self, victim: NetworkReference, images: Images, own: PlannedVictim, sources: Sequence[PlannedVictim]
    ) -> Iterator[CraftedShard]:
        """With `every_source`, the sets of the block's other sources are judged as well: the transfer matrix."""
        for protocol in self.suite.protocol.source_only:
            others = [source for source in sources if source is not own] if protocol.every_source else []
            for source in (own, *others):
                held = AttackersSource(source.network, self.block.source_dataset or "")
                shards = images.shards()
                for shard in source_only_shards(victim, held, protocol, shards, self.seed, source is own):
                    craft = self._add(shard.craft)
                    yield CraftedShard(shard.source, craft, self._add(replace(shard.judge, crafted=craft)))


def described(view: str) -> str:
    """What images go through, in words, from the text in a job."""
    side = View.parse(view).side
    if side is not None:
        return f"{side}x{side} (unchanged at that size, others {Preprocessing.for_side(side).text})"
    return view or "as they are"


def describe(planned: Plan) -> list[str]:
    """The plan in lines, one per job: kind, label, size and name; then the totals."""
    lines = [f"{job.kind:<8}{job.label:<44}{job.size:>24}  {job.name[:12]}" for job in planned.jobs]
    views = {(one.dataset, one.preprocessing): None for _, one in planned.evaluations}
    turn = "; the classes in turn" if planned.suite.stratified else ""
    lines += [f"images of {dataset}: {described(text)}{turn}" for dataset, text in views]
    kinds = Counter(job.kind for job in planned.jobs)
    total = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return [
        *lines,
        f"{len(planned.jobs)} jobs ({total}) for {len(planned.victims)} networks, seeds {planned.seeds}",
    ]
