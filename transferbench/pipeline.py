"""Suite -> records: train, craft, attack, judge, and the tables of what came out."""

from __future__ import annotations

from transferbench import attacks, cards, methods
from transferbench.cards import ModelCard
from transferbench.leaderboard import build
from transferbench.plan import PlannedVictim, plan
from transferbench.recording import record_of, write_records
from transferbench.records import Record
from transferbench.runner import Runner
from transferbench.suites import Suite
from transferbench.types import InputError, ThreatModel, file_stem
from transferbench.victims import trained
from transferbench.workplaces import Reporter


def check(suite: Suite, num_classes: int = 10) -> None:
    """Build every attack and every method's hyper-parameters once. InputError before anything has run."""
    for norm, eps in suite.threats.items():
        for spec in suite.protocol.chain(norm, eps).attacks:
            attacks.build(spec, ThreatModel.parse(norm, eps), num_classes)
    for chain in suite.protocol.further_chains(dict(suite.threats)):
        for spec in chain.attacks:
            attacks.build(spec, chain.threat, num_classes)
    only = suite.protocol.source_only
    if only is not None:
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
    if suite.training is not None:
        for row in (*suite.training.sources, *suite.training.rows):
            methods.build(row.method, dict(row.set))


def run_suite(suite: Suite, seeds: tuple[int, ...], runner: Runner, reporter: Reporter) -> list[Record]:
    """Run a suite to its end and write records, cards, tables into the store's folder. Returns the records.

    FaultError at the end where a job failed: then rows are incomplete, or missing where nothing was measured.
    """
    planned = plan(suite, seeds)
    runner.run(planned.jobs, reporter)
    radii: dict[str, str] = dict(suite.threats.items())
    measured = [victim for victim in planned.victims if victim.measured.finished(runner.results)]
    known = {victim.name: _card(runner, victim, radii) for victim in measured}
    records = [_record(suite, victim, runner, known) for victim in measured]
    root = runner.store.root
    if records:
        write_records(root, records)
        build.write(root, records)
        build.write_cards(root / "cards", records, known)
    # What an earlier plan left here (other seeds, another suite file) is no part of this table; it stays in the
    # store, and the plan that made it finds it there.
    for stale in {*(root / "records").glob("*.json"), *(root / "cards").glob("*.md")}:
        if stale.stem not in {file_stem(name) for name in known}:
            stale.unlink()
    runner.raise_failures()
    return records


def _card(runner: Runner, victim: PlannedVictim, threats: dict[str, str]) -> ModelCard:
    """The card of a victim that a finished training job wrote, with the radii it is evaluated at."""
    folder = runner.store.root / runner.results[victim.train.name]["folder"]
    card = cards.read(folder / trained.CARD).model_copy(update={"threats": threats})
    trained.save_card(folder, card)
    return card


def _record(suite: Suite, victim: PlannedVictim, runner: Runner, known: dict[str, ModelCard]) -> Record:
    training = runner.results[victim.train.name]
    source = known.get(victim.source)
    return record_of(
        suite,
        victim.measured,
        known[victim.name],
        training["sha256"],
        source.dataset if source is not None else "",
        runner.results,
        runner.executor.test(victim.measured.dataset, victim.measured.preprocessing).first(suite.n),
        runner.place.keep,
        training,
    )
