"""`run`: train, craft, attack and judge a suite, and write records, cards, tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from transferbench import attacks, data, methods
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.settings import RunSettings
from transferbench.base.specifications import Chain
from transferbench.data import Dataset, Split, View, few_shot
from transferbench.jobs.networks import PublicNetwork
from transferbench.jobs.train import TrainJob
from transferbench.leaderboard import build, example_gallery, figures, page
from transferbench.models import cards, trained, victims
from transferbench.models.cards import ModelCard
from transferbench.results.records import Record
from transferbench.scheduling.plan import Evaluation, Plan, PlannedVictim, plan
from transferbench.scheduling.reporter import Reporter
from transferbench.scheduling.scheduler import Scheduler
from transferbench.store.store import Store
from transferbench.suites import Source, SourceOnly, Suite, SuiteRow
from transferbench.workflows import gallery
from transferbench.workflows import settings as settings_check
from transferbench.workflows.job_progress import JobProgress
from transferbench.workflows.pass_estimate import EstimatingReporter
from transferbench.workflows.records import Subject, assemble_record, write_records

_CLASSES = 10
"""Attacks are built once for this many classes, to check their parameters."""


def check(suite: Suite) -> None:
    """Build every attack and every method's hyper-parameters once. InputError before anything has run."""
    radii = dict(suite.threats)
    for chain in [suite.protocol.chain(norm, eps) for norm, eps in radii.items()]:
        _check_chain(chain)
    for chain in suite.protocol.further_chains(radii):
        _check_chain(chain)
    for protocol in suite.protocol.source_only:
        _check_source_only(suite, protocol)
    for block in suite.training:
        for source in block.sources:
            if source.model and (full := victims.card(source.model).id) != source.model:
                raise InputError(f"suite {suite.name}: source {source.name}: write the model's whole id, {full}")
        trainings: list[Source | SuiteRow] = [*block.sources, *block.rows]
        for row in trainings:
            if row.method is not None:
                method = methods.build(row.method, dict(row.set))
                methods.lineage(method)
                params = method.params
                if isinstance(row, SuiteRow):
                    few_shot.check(block.target_dataset, block.shots_rule, block.shots, params.validation)


def planned(suite: Suite, seeds: tuple[int, ...] | None, settings: RunSettings) -> Plan:
    """The plan of a suite for the seeds (None: its own), when suite and settings are checked. InputError otherwise."""
    made = plan(suite, suite.seeds if seeds is None else seeds)
    check(suite)
    settings_check.check(settings)
    return made


def complete(made: Plan, settings: RunSettings, progress: JobProgress) -> list[Record]:
    """Run a plan to its end in the settings' folder: records, cards, tables, galleries, figures, page.

    InputError, before anything is written, where data or weights are missing; otherwise as `run_suite`.
    """
    missing = absent(made, settings)
    if missing:
        raise InputError(missing[0])
    with Store(settings.root) as store, progress, Scheduler(store, settings) as scheduler:
        records = run_suite(made, scheduler, progress)
    write_page(settings.root, records)
    return records


def absent(planned: Plan, settings: RunSettings) -> list[str]:
    """What the plan needs and this machine lacks, one line each: files of data sets, weights of public models, too few
    examples or classes. Loads what it looks at."""
    problems: list[str] = []
    seen: set[object] = set()

    def attempt(key: object, function: Callable[[], object]) -> None:
        if key not in seen:
            seen.add(key)
            try:
                function()
            except InputError as error:
                # The two splits of a data set miss the same files.
                if str(error) not in problems:
                    problems.append(str(error))

    for job in planned.jobs:
        if isinstance(job, TrainJob):
            attempt(("train", job.dataset), partial(_load, job.dataset, "train", job.preprocessing, settings))
    for victim in planned.victims:
        public = victim.network.public_id
        if public is not None:
            attempt(public, partial(victims.load, public, settings.model_dir))
        one = victim.evaluation
        if one is not None:
            attempt(("test", one.dataset), partial(_check_test, planned.suite, one, settings))
    return problems


def download(suite: Suite, settings: RunSettings) -> None:
    """Download what is missing of the suite's data sets and public models. InputError where that cannot be done."""
    for block in suite.training:
        for dataset in filter(None, (block.source_dataset, block.target_dataset)):
            data.download(dataset, settings.data_dir)
        for source in block.sources:
            if source.model:
                victims.load(source.model, settings.model_dir, download=True)


def _load(dataset: str, split: Split, preprocessing: str, settings: RunSettings) -> Dataset:
    return data.load(dataset, split, settings.data_dir, View.parse(preprocessing))


def _check_test(suite: Suite, evaluation: Evaluation, settings: RunSettings) -> None:
    """The test split has the n examples, and the classes that the chains' attacks ask for."""
    test = _load(evaluation.dataset, "test", evaluation.preprocessing, settings)
    test.first(suite.n, suite.stratified)
    for shards in evaluation.chains.values():
        for spec in shards[0].chain.attacks:
            attacks.build(spec, shards[0].chain.threat, len(test.classes))


def _check_chain(chain: Chain) -> None:
    attacks.build_chain(chain, _CLASSES)


def _check_source_only(suite: Suite, protocol: SourceOnly) -> None:
    """The control has as many draws as any attack has tries, and no attack sees the victim."""
    built = {part.id: attacks.build(part.spec(), protocol.threat, _CLASSES) for part in protocol.parts}
    control = built[protocol.control.id]
    for asking in protocol.queries:
        attack = attacks.build(asking.spec(), protocol.threat, _CLASSES)
        if attack.sees != "source" or attack.scope != "query":
            raise InputError(f"suite {suite.name}: {asking.id} asks no queries: name it as attack, or under also")
        if attack.begins == "crafted" and built[protocol.starting.id].scope != "image":
            raise InputError(f"suite {suite.name}: {asking.id} begins at points of one image: start: names none")
    for id, part in built.items():
        if part.sees == "source" and part.scope == "query":
            raise InputError(f"suite {suite.name}: {id} asks the victim: name it under queries")
        if part.sees == "victim":
            raise InputError(f"suite {suite.name}: {id} attacks the victim itself; it is no source-only attack")
        if part.tries > control.tries:
            raise InputError(
                f"suite {suite.name}: {id} has {part.tries} tries, its control {protocol.control.id} only "
                f"{control.tries} draws"
            )


def run_suite(planned: Plan, scheduler: Scheduler, reporter: Reporter) -> list[Record]:
    """Run a planned suite and write records, cards, tables and galleries into the run's folder. Returns the records.

    FaultError at the end where a job failed: then rows are incomplete, or missing where nothing was measured.
    """
    scheduler.run(planned.jobs, EstimatingReporter(reporter, scheduler, planned.jobs))
    results = scheduler.results
    finished = [(victim, one) for victim, one in planned.evaluations if one.has_record(results)]
    needed = {name for victim, _ in finished for name in (victim.name, victim.source) if name}
    card_of = {victim.name: _card(planned, scheduler, victim) for victim in planned.victims if victim.name in needed}
    records = [_record(planned, scheduler, victim, one, card_of) for victim, one in finished]
    root = scheduler.store.root
    if records:
        write_records(root, records)
        build.write(root, records)
        build.write_cards(root / "cards", records, card_of)
        for _, one in finished:
            examples = _examples(planned.suite, scheduler, one)
            gallery.write(root, one, results, examples)
    _remove_others(root, {file_stem(victim.name) for victim, _ in finished})
    scheduler.raise_failures()
    return records


def _examples(suite: Suite, scheduler: Scheduler, evaluation: Evaluation) -> Dataset:
    """The attacked examples."""
    test = scheduler.resources.test(evaluation.dataset, evaluation.preprocessing)
    return test.first(suite.n, suite.stratified)


def write_page(root: Path, records: list[Record]) -> None:
    """Write the figures and the page of a run."""
    figures.write(root, records)
    page.write(root, records)


def _remove_others(root: Path, victims: set[str]) -> None:
    """Remove the records, cards and galleries of an earlier plan (other seeds, another suite file).

    They are no part of this table; their jobs stay in the store, where the plan that made them finds them.
    """
    for folder in ("records", "cards", example_gallery.FOLDER):
        for file in (root / folder).glob("*.*"):
            if file.stem not in victims:
                file.unlink()


def _card(planned: Plan, scheduler: Scheduler, victim: PlannedVictim) -> ModelCard:
    """The card of a public model, or the one that its training wrote, with the radii of the evaluation."""
    threats = dict(planned.suite.threats)
    if victim.train is None:
        return victims.card(victim.name).model_copy(update={"threats": threats})
    folder = scheduler.store.root / scheduler.results.of(victim.train).folder
    card = cards.read(folder / trained.CARD).model_copy(update={"threats": threats})
    trained.save_card(folder, card)
    return card


def _record(
    planned: Plan, scheduler: Scheduler, victim: PlannedVictim, evaluation: Evaluation, card_of: dict[str, ModelCard]
) -> Record:
    results, resources, suite = scheduler.results, scheduler.resources, planned.suite
    training = results.find(victim.train)
    if training is None:
        sha256 = resources.network(PublicNetwork(victim.name).input(results)).sha256
    else:
        sha256 = training.sha256
    source_dataset = card_of[victim.source].dataset if victim.source else ""
    subject = Subject(card_of[victim.name], sha256, source_dataset, training)
    if victim.train is not None:
        method = methods.build(victim.train.method, dict(victim.train.settings))
        subject = replace(subject, extends=tuple(methods.lineage(method)), variant=method.variant)
    examples = _examples(suite, scheduler, evaluation)
    return assemble_record(suite, evaluation, subject, results, examples, scheduler.settings.keep)
