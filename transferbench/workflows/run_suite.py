"""Suite -> records: train, craft, attack, judge, and the tables of what came out."""

from __future__ import annotations

from transferbench import attacks, methods
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.specifications import ThreatModel
from transferbench.leaderboard import build
from transferbench.models import cards, trained, victims
from transferbench.models.cards import ModelCard
from transferbench.results.records import Record
from transferbench.scheduling.backends.local import Reporter
from transferbench.scheduling.plan import Measured, PlannedVictim, plan
from transferbench.scheduling.scheduler import Runner
from transferbench.suites import Row, Source, Suite
from transferbench.workflows import gallery
from transferbench.workflows.records import record_of, write_records


def check(suite: Suite, num_classes: int = 10) -> None:
    """Build every attack and every method's hyper-parameters once. InputError before anything has run."""
    for norm, eps in suite.threats.items():
        for spec in suite.protocol.chain(norm, eps).attacks:
            attacks.build(spec, ThreatModel.parse(norm, eps), num_classes)
    for chain in suite.protocol.further_chains(dict(suite.threats)):
        for spec in chain.attacks:
            attacks.build(spec, chain.threat, num_classes)
    for only in suite.protocol.source_only:
        threat = ThreatModel.parse(only.norm, only.eps)
        tries = [attacks.build(part.spec(), threat, num_classes).tries for part in (only.attack, only.control)]
        if tries[0] != tries[1]:
            raise InputError(
                f"suite {suite.name}: {only.attack.id} has {tries[0]} tries, its control {only.control.id} has "
                f"{tries[1]}: they are compared any of k, so k must be equal"
            )
        for part in (only.attack, only.control, *only.also):
            attack = attacks.build(part.spec(), threat, num_classes)
            if attack.sees == "victim":
                raise InputError(
                    f"suite {suite.name}: {part.id} attacks the victim itself; it is no source-only attack"
                )
            if attack.tries > tries[1]:
                raise InputError(
                    f"suite {suite.name}: {part.id} has {attack.tries} tries, its control {only.control.id} only "
                    f"{tries[1]} draws"
                )
    for block in suite.training:
        for source in block.sources:
            if source.model and (full := victims.card(source.model).id) != source.model:
                raise InputError(f"suite {suite.name}: source {source.name}: write the model's whole id, {full}")
        trainings: list[Source | Row] = [*block.sources, *block.rows]
        for row in trainings:
            if row.method is not None:
                methods.build(row.method, dict(row.set))


def run_suite(suite: Suite, seeds: tuple[int, ...], runner: Runner, reporter: Reporter) -> list[Record]:
    """Run a suite to its end and write records, cards, tables into the store's folder. Returns the records.

    FaultError at the end where a job failed: then rows are incomplete, or missing where nothing was measured.
    """
    planned = plan(suite, seeds)
    runner.run(planned.jobs, reporter)
    done = [(victim, measured) for victim, measured in planned.measured if measured.finished(runner.results)]
    needed = {name for victim, _ in done for name in (victim.name, victim.source) if name}
    known = {victim.name: _card(suite, runner, victim) for victim in planned.victims if victim.name in needed}
    records = [_record(suite, victim, measured, runner, known) for victim, measured in done]
    root = runner.store.root
    if records:
        write_records(root, records)
        build.write(root, records)
        build.write_cards(root / "cards", records, known)
        for _, one in done:
            gallery.write(
                root, one, runner.results, runner.executor.test(one.dataset, one.preprocessing).first(suite.n)
            )
    # What an earlier plan left here (other seeds, another suite file) is no part of this table; it stays in the
    # store, and the plan that made it finds it there.
    measured = {file_stem(victim.name) for victim, _ in done}
    for stale in {file for place in ("records", "cards", "strips") for file in (root / place).glob("*.*")}:
        if stale.stem not in measured:
            stale.unlink()
    runner.raise_failures()
    return records


def _card(suite: Suite, runner: Runner, victim: PlannedVictim) -> ModelCard:
    """The card of a public model, or that which a finished training job wrote with the radii it is evaluated at."""
    threats: dict[str, str] = dict(suite.threats.items())
    if victim.train is None:
        return victims.card(victim.name).model_copy(update={"threats": threats})
    folder = runner.store.root / runner.results[victim.train.name]["folder"]
    card = cards.read(folder / trained.CARD).model_copy(update={"threats": threats})
    trained.save_card(folder, card)
    return card


def _record(
    suite: Suite, victim: PlannedVictim, measured: Measured, runner: Runner, known: dict[str, ModelCard]
) -> Record:
    training = runner.results[victim.train.name] if victim.train is not None else None
    first = next(iter(measured.chains.values()))[0]
    sha256 = runner.executor.victim(first, runner.results).sha256 if training is None else training["sha256"]
    return record_of(
        suite,
        measured,
        known[victim.name],
        sha256,
        known[victim.source].dataset if victim.source else "",
        runner.results,
        runner.executor.test(measured.dataset, measured.preprocessing).first(suite.n),
        runner.place.keep,
        training,
    )
