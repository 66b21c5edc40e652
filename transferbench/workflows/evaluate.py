"""`eval`: any victim on any data set, at the radii of its card. The record is the same as a suite's row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from transferbench import data, suites
from transferbench.attacks.apgd import SCREEN
from transferbench.base import attack_parameters, dataset_id, full_precision, registry
from transferbench.base.corruptions import CORRUPTION_THREATS, CorruptionBenchmark
from transferbench.base.errors import InputError
from transferbench.base.ids import RENOFEATION
from transferbench.base.settings import RunSettings
from transferbench.base.specifications import NORMS, Chain, Epsilon, Norm, ThreatModel, ThreatName
from transferbench.data import View
from transferbench.engine import reference
from transferbench.engine import selftest as engine_selftest
from transferbench.engine.preflight import at_chance
from transferbench.engine.source_model import SourceModel
from transferbench.engine.verdicts import Examples
from transferbench.jobs.attack import EngineName
from transferbench.jobs.clean import CleanJob
from transferbench.jobs.networks import PublicNetwork
from transferbench.leaderboard import build, page
from transferbench.models.catalogue.classes import radii_of
from transferbench.models.victim import Victim, fitted
from transferbench.models.victims import canonical
from transferbench.models.victims import load as load_victim
from transferbench.results.records import Record
from transferbench.scheduling.crafted_plan import (
    AttackersSource,
    CraftedShard,
    QueriedShard,
    queried_shards,
    source_only_shards,
)
from transferbench.scheduling.plan import Evaluation, Images, attack_jobs
from transferbench.scheduling.reporter import Reporter
from transferbench.scheduling.scheduler import Scheduler
from transferbench.suites import SourceOnly, Suite
from transferbench.workflows import chosen_attacks, corruptions, existing_record, gallery
from transferbench.workflows.carried_attacks import carried, require_images
from transferbench.workflows.chosen_attacks import ChosenAttacks
from transferbench.workflows.pass_estimate import EstimatingReporter
from transferbench.workflows.records import Subject, assemble_record, write_records


class AtChanceError(InputError):
    """The model's clean accuracy is not above chance; nothing was attacked."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What the user asked `eval` for. `norms` are threats: norms, `renofeation`, or those of corruptions; empty for the
    model's own where that is corruptions, else all norms (`completed`). `attacks` replaces the suite's
    attacks of the same kind (workflows/chosen_attacks.py); `n` None means up to the suite's n."""

    model: str
    dataset: str | None = None
    norms: tuple[ThreatName, ...] = ()
    eps: dict[ThreatName, Epsilon] = field(default_factory=dict)
    attacks: tuple[str, ...] = ()
    source: str | None = None
    n: int | None = None
    seed: int = 0
    backend: EngineName = "transferbench"
    attacks_source: tuple[str, ...] = ()
    network: str | None = None
    weights_key: str | None = None
    download: bool = False
    allow_low_accuracy: bool = False
    stratified: bool = False

    @property
    def victim(self) -> str:
        """The model's id with the architecture and the entry that --network and --weights-key give to a file."""
        entry = "" if self.weights_key is None else f"#{self.weights_key}"
        if self.network is None:
            return f"{self.model}{entry}"
        return f"file:{self.network}={self.model.removeprefix('file:')}{entry}"

    @property
    def threats(self) -> tuple[ThreatName, ...]:
        """The threats, all norms where none is named."""
        return self.norms or NORMS

    def completed(self, victim: Victim) -> EvaluationRequest:
        """The request with its threats. Who names none, and nothing about attacks, wants the model's own."""
        about_attacks = (
            self.norms
            or self.eps
            or self.attacks
            or self.attacks_source
            or self.source
            or self.backend != "transferbench"
        )
        own = corruptions.own_threat(victim.card)
        if not about_attacks and own in CORRUPTION_THREATS:
            return replace(self, norms=(own,))
        return replace(self, norms=self.threats)

    @property
    def attacked_threats(self) -> tuple[ThreatName, ...]:
        """The threats under which something is attacked."""
        return tuple(threat for threat in self.threats if threat not in CORRUPTION_THREATS)

    @property
    def chosen(self) -> ChosenAttacks:
        """The attacks that --attacks and --attacks-source name. InputError for an unknown or unsuitable one."""
        chosen = chosen_attacks.parse(self.attacks, self.attacked_threats, self.backend)
        return chosen.with_source_only(chosen_attacks.parse_source(self.attacks_source, self.attacked_threats))

    @property
    def balls(self) -> tuple[Norm, ...]:
        """The norms among the threats: each has a chain of attacks on the victim."""
        return tuple(norm for norm in NORMS if norm in self.threats)


def check(request: EvaluationRequest) -> None:
    """InputError for wrong names and numbers, before any file is looked for."""
    for norm, eps in request.eps.items():
        ThreatModel(norm, eps)
        if norm not in request.threats:
            raise InputError(f"--eps names {norm}, which --norms leaves out: {','.join(request.threats)}")
    check_model(request)
    if request.n is not None and request.n < 1:
        raise InputError(f"--n {request.n}: ask for at least 1 example")
    check_order(request)
    has_source = request.source is not None
    corruptions.check_request(request.norms, request.attacks, request.backend, has_source)
    chosen = request.chosen
    chosen_attacks.check_source(chosen, request.attacked_threats, has_source)
    if request.dataset is not None:
        dataset_id.find(request.dataset)


def check_order(request: EvaluationRequest) -> None:
    """InputError for corrupted images in an order of their own."""
    if request.stratified and any(threat in CORRUPTION_THREATS for threat in request.norms):
        raise InputError("--stratified is of attacked images: corrupted ones are taken in their published order")


def check_model(request: EvaluationRequest) -> None:
    """InputError for an unknown architecture, and one, or an entry, of a model that is no file."""
    if request.network is not None:
        registry.find_family("networks", request.network)
        if not request.model.startswith("file:"):
            raise InputError(f"--network is for weights in a file: write --model file:{request.model}")
    if request.weights_key is not None and not request.model.startswith("file:"):
        raise InputError(f"--weights-key is for weights in a file: write --model file:{request.model}")


def radii(request: EvaluationRequest, victim: Victim) -> dict[Norm, Epsilon]:
    """--eps, else the card's, else the data set's. InputError names the norm that has none."""
    chosen: dict[Norm, Epsilon] = {}
    defaults = radii_of(victim.card.dataset) or radii_of(request.dataset or "")
    for norm in request.balls:
        eps = request.eps.get(norm) or victim.card.threats.get(norm) or defaults.get(norm)
        if eps is None:
            raise InputError(f"no radius for {norm}: {victim.id}'s card has none; give one with --eps {norm}=...")
        chosen[norm] = eps
    return chosen


@dataclass(frozen=True)
class EvaluationSubjects:
    """Everything that `eval` needs, loaded and checked before anything is written."""

    suite: Suite
    victim: Victim
    network: PublicNetwork
    source: Victim | None
    source_network: PublicNetwork | None
    images: Images
    chains: list[Chain]
    source_only: list[SourceOnly]
    corruptions: list[CorruptionBenchmark]
    unmeasured_threat: str
    notes: tuple[str, ...] = ()


def load(request: EvaluationRequest, settings: RunSettings) -> EvaluationSubjects:
    """Load the models and the data of a checked request. InputError where one is missing or they do not fit."""
    suite = suites.load("eval")
    victim = load_victim(request.victim, settings.model_dir, request.download)
    request = request.completed(victim)
    check_order(request)
    source = None
    if request.source is not None:
        source = load_victim(request.source, settings.model_dir, request.download)
    dataset = request.dataset or victim.card.dataset
    if dataset == "unknown":
        raise InputError(f"model {request.model}: nothing says what it was trained on: name the data with --dataset")
    chosen = radii(request, victim)
    if request.download:
        data.download(dataset, settings.data_dir)
    test = data.load(dataset, "test", settings.data_dir, View.of(victim.card.preprocessing, victim.card.input_shape))
    source = None if source is None else fitted(source, test.shape)
    victim.check_fits(dataset, test.shape, test.classes)
    most = test.attackable or len(test)
    # Corrupted images alone are cheap: RobustBench takes all.
    n = request.n or (min(suite.n, most) if request.attacked_threats else most)
    corrupted = corruptions.named(request.norms)
    benchmarks = corruptions.check_data(
        corrupted, test.first(n, request.stratified), victim, settings, request.download
    )
    described = suite.protocol.model_copy(update={"description": _description(request, suite, benchmarks)})
    suite = suite.model_copy(update={"protocol": described})
    network = PublicNetwork(canonical(request.victim, victim), victim.id)
    source_network = None
    source_only = _source_only(request, suite, chosen) if source is not None else []
    notes: list[str] = []
    if source is not None:
        require = partial(require_images, source=source, test=test, data_dir=settings.data_dir)
        every = "all" in request.attacks_source
        source_only, notes = carried(SourceModel(source.model, source.layers), source.id, source_only, every, require)
        source_network = PublicNetwork(canonical(request.source or "", source), source.id)
    images = Images(dataset, test.preprocessing, n, request.stratified)
    return EvaluationSubjects(
        suite.model_copy(update={"n": n, "stratified": request.stratified}),
        victim,
        network,
        source,
        source_network,
        images,
        _chains(request, suite, chosen),
        source_only,
        benchmarks,
        corruptions.unmeasured(victim.card, request.norms),
        tuple(notes),
    )


def evaluate(
    request: EvaluationRequest, subjects: EvaluationSubjects, scheduler: Scheduler, reporter: Reporter
) -> Record:
    """Run the evaluation, write record and tables into the store's folder, return the record.

    InputError, before any attack, where clean accuracy is not above chance (`allow_low_accuracy` attacks anyway).
    """
    root, images, resources = scheduler.store.root, subjects.images, scheduler.resources
    # The table is built of all records in the folder: an unreadable one is reported before the attack.
    attacked = resources.test(images.dataset, images.preprocessing).first(images.n, images.stratified)
    new = existing_record.NewRecord(
        victim=subjects.victim,
        examples=attacked,
        chains=subjects.chains,
        source=subjects.source.id if subjects.source is not None else "",
        source_only=subjects.source_only,
        seed=request.seed,
        backend=request.backend,
        precision=scheduler.settings.engine.precision,
        corruptions=[one.threat for one in subjects.corruptions],
    )
    existing_record.check(root, new)
    evaluation = plan(request, subjects)
    jobs = evaluation.jobs()
    scheduler.announce(jobs, reporter)
    for note in subjects.notes:
        reporter.note(note)
    for victim in (subjects.victim, *((subjects.source,) if subjects.source is not None else ())):
        for note in victim.card.weights_notes:
            reporter.note(f"{victim.id}: {note}")
    resources.provide_network(subjects.network.name, subjects.victim)
    if subjects.source is not None and subjects.source_network is not None:
        resources.provide_network(subjects.source_network.name, subjects.source)
    _check_accuracy(request, subjects, scheduler, reporter)
    scheduler.run(jobs, EstimatingReporter(reporter, scheduler, jobs))
    scheduler.raise_failures()
    examples = resources.test(images.dataset, images.preprocessing).first(images.n, images.stratified)
    source_dataset = subjects.source.card.dataset if subjects.source is not None else ""
    record = assemble_record(
        subjects.suite,
        evaluation,
        Subject(subjects.victim.card, subjects.victim.sha256, source_dataset, None, subjects.unmeasured_threat),
        scheduler.results,
        examples,
        scheduler.settings.keep,
        {part.job.name: resources.fingerprint(part.job.images) for part in evaluation.corrupted},
    )
    write_records(root, [record])
    gallery.write(root, evaluation, scheduler.results, examples)
    page.write(root, build.rebuild(root))
    return record


def plan(request: EvaluationRequest, subjects: EvaluationSubjects) -> Evaluation:
    """The jobs of the evaluation: the chains, and the source-only attack with its control where a source is given."""
    network, images, seed = subjects.network, subjects.images, request.seed
    chains = {chain.name: attack_jobs(network, chain, images, seed, request.backend) for chain in subjects.chains}
    crafted: list[CraftedShard] = []
    queried: list[QueriedShard] = []
    if subjects.source is not None and subjects.source_network is not None:
        held = AttackersSource(subjects.source_network, subjects.source.card.dataset)
        for protocol in subjects.source_only:
            crafted.extend(source_only_shards(network, held, protocol, images.shards(), seed))
            queried.extend(queried_shards(network, held, protocol, images.shards(), seed))
    evaluation = Evaluation(
        subjects.victim.id, "victim", seed, images.dataset, images.preprocessing, network, chains, crafted
    )
    evaluation.queried.extend(queried)
    return corruptions.plan(evaluation, subjects.corruptions, network, images)


def _check_accuracy(
    request: EvaluationRequest, subjects: EvaluationSubjects, scheduler: Scheduler, reporter: Reporter
) -> None:
    victim, images = subjects.victim, subjects.images
    attacked = images.part(0, images.n)
    job = CleanJob(f"{victim.id}: clean", subjects.network, attacked)
    scheduler.run([job], reporter, in_process=True)
    scheduler.raise_failures()
    correct = scheduler.results.of(job).correct
    if at_chance(correct, images.n, victim.num_classes) and not request.allow_low_accuracy:
        raise AtChanceError(
            f"{victim.id} is right on {correct} of {images.n} images of {images.dataset}, no better than chance among "
            f"{victim.num_classes} classes: wrong order of classes, wrong normalisation, another data set or "
            "untrained weights? --allow-low-accuracy attacks it all the same"
        )


def _chains(request: EvaluationRequest, suite: Suite, radii: dict[Norm, Epsilon]) -> list[Chain]:
    chosen = request.chosen
    chains = []
    for norm, eps in radii.items():
        chain = suite.protocol.chain(norm, eps)
        if chosen.on_victim:
            chain = replace(chain, attacks=chosen.on_victim)
        if request.backend == "autoattack":
            # The screen is a step of our engine; the reference runs its own protocol only.
            chain = replace(chain, attacks=tuple(spec for spec in chain.attacks if spec != SCREEN))
            reference.check(chain.attacks)
        chains.append(chain)
    return chains


def _description(request: EvaluationRequest, suite: Suite, benchmarks: Sequence[CorruptionBenchmark]) -> str:
    """What was measured, in a sentence: the suite's own for its own chains."""
    chosen = request.chosen
    parts = []
    if request.balls and not chosen.on_victim and request.backend == "transferbench":
        parts.append(suite.protocol.description)
    elif request.balls:
        specs = chosen.on_victim or suite.protocol.chain(request.balls[0], Epsilon.parse("1")).attacks
        engine = " of pyautoattack" if request.backend == "autoattack" else ""
        parts.append(f"attacks{engine} as asked for: {', '.join(map(attack_parameters.text_of, specs))}")
    if RENOFEATION in request.attacked_threats:
        parts.append("Renofeation's own evaluation: attacks that hold the source alone, in its box")
    if benchmarks:
        parts.append(corruptions.description(benchmarks))
    return "; ".join(parts)


def _source_only(request: EvaluationRequest, suite: Suite, radii: dict[Norm, Epsilon]) -> list[SourceOnly]:
    """The source-only measurements under the request's threats: in Linf at the evaluation's radius."""
    chosen = request.chosen
    given: dict[ThreatName, Epsilon] = dict(radii) | request.eps
    wanted = (part for part in suite.protocol.source_only if part.norm in request.norms)
    return [chosen.protocol(part.model_copy(update={"eps": given.get(part.norm, part.eps)})) for part in wanted]


def selftest(
    request: EvaluationRequest, subjects: EvaluationSubjects, settings: RunSettings
) -> Iterator[tuple[str, int, int]]:
    """(threat, regions planted, regions found) per chain (engine/selftest.py)."""
    full_precision.switch_on()
    images = subjects.images
    test = data.load(images.dataset, "test", settings.data_dir, View.parse(images.preprocessing))
    shard = test.first(images.n, images.stratified).on(settings.device)
    examples = Examples(shard.pixels, shard.labels, shard.ids)
    model = subjects.victim.to(settings.device).model
    for chain in subjects.chains:
        result = engine_selftest.selftest(model, examples, [chain], request.seed, settings.batch_size)
        yield str(chain.threat), result.planted, result.detected[chain.name]
