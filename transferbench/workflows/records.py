"""A plan's evaluation and its results -> the record of a victim."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.results import AttackResult, CorrectResult, CraftResult, JudgeResult, QueryResult, TrainResult
from transferbench.base.specifications import Keep
from transferbench.base.versions import packages
from transferbench.data import Dataset
from transferbench.engine.preflight import at_chance
from transferbench.jobs.correct import CorrectJob
from transferbench.jobs.job import Results
from transferbench.jobs.universal import UniversalJob
from transferbench.models.cards import ModelCard
from transferbench.results import assemble
from transferbench.results.records import UNTRAINED, Bits, CraftedRecord, Origin, QueriedRecord, Record, dump, read
from transferbench.scheduling.plan import Evaluation
from transferbench.suites import Suite
from transferbench.workflows import corruptions


def write_records(root: Path, records: list[Record]) -> None:
    """Write records/<victim>.json below the folder. A file that already says the same keeps its origin and stamp."""
    (root / "records").mkdir(exist_ok=True)
    for record in records:
        path = root / "records" / f"{file_stem(record.victim)}.json"
        if not _is_current(path, record):
            atomic_files.write_text(path, dump(record))


def _is_current(path: Path, record: Record) -> bool:
    """Whether a file holds the record already, apart from who ran it and when."""
    try:
        before = read(path)
    except InputError:
        return False
    varying = {name: getattr(record, name) for name in ("origin", "stamp", "versions", "cost")}
    return before.model_copy(update=varying) == record


@dataclass(frozen=True)
class Subject:
    """The network that a record is about. `training` is its training's result, None for one that this run did not
    train; `source_dataset` is what its source was trained on, empty without a source; `unmeasured_threat` the one
    that it was trained for and is not measured under. `extends` and `variant` are the record's."""

    card: ModelCard
    sha256: str
    source_dataset: str = ""
    training: TrainResult | None = None
    unmeasured_threat: str = ""
    extends: tuple[str, ...] = ()
    variant: dict[str, str] = field(default_factory=dict)


def assemble_record(
    suite: Suite,
    evaluation: Evaluation,
    subject: Subject,
    results: Results,
    examples: Dataset,
    keep: Keep,
    fingerprints: dict[str, str] | None = None,
) -> Record:
    """The record of one victim over the n attacked `examples`. A chain or crafted set of which a shard has no result is
    left out; the row that the record makes then has no rank. `fingerprints`: those of corrupted images, by job."""
    card = subject.card
    passes = None if subject.training is None else subject.training.passes
    finished = evaluation.finished_chains(results)
    chains = evaluation.chain_results(results)
    clean_bits = results.find(evaluation.clean_bits)
    attacked = [result for shards in chains.values() for result in shards]
    judged = [result for shard in evaluation.crafted if (result := results.find(shard.judge)) is not None]
    # A universal delta is one job for all shards.
    crafts = {shard.craft.name: shard.craft for shard in evaluation.crafted}.values()
    crafted = [made for craft in crafts if (made := results.find(craft)) is not None]
    correct = _clean(evaluation, results)
    clean_of_chains = correct.first(min(correct.n, suite.attacked_by_chains))
    clean = results.find(evaluation.clean)
    counted: list[CorrectJob] = [part.job for part in evaluation.corrupted]
    counted += [] if evaluation.clean_bits is None else [evaluation.clean_bits]
    corrupted = [done for job in counted if (done := results.find(job)) is not None]
    asked = [answered for shard in evaluation.queried if (answered := results.find(shard.job)) is not None]
    measured: list[AttackResult | JudgeResult | CorrectResult | QueryResult] = [
        *attacked,
        *judged,
        *corrupted,
        *asked,
    ]
    flags = {flag for result in measured for flag in result.flags}
    flag_rows = {
        name: most
        for name in sorted(flags)
        if (most := max((sum(part.flag_rows.get(name, 0) for part in shards) for shards in chains.values()), default=0))
    }
    if at_chance(correct.count, suite.n, len(card.classes)):
        flags.add("accuracy-at-chance")
    if suite.untrained or card.untrained:
        flags.add(UNTRAINED)
    return Record(
        suite=suite.name,
        protocol=suite.protocol.description,
        role="source" if evaluation.role == "source" else "victim",
        victim=evaluation.victim,
        method=card.method,
        # A public model's card may not say what it was made from; then it is the network that the attacker was given.
        source=card.source or next((shard.source for shard in evaluation.crafted), ""),
        head=card.head,
        network=card.network,
        source_dataset=subject.source_dataset,
        target_dataset=evaluation.dataset,
        seed=evaluation.seed,
        n=suite.n,
        stratified=True if suite.stratified else None,
        image_shape=examples.shape,
        preprocessing=examples.preprocessing,
        data_fingerprint=examples.fingerprint,
        class_counts=examples.class_counts(),
        data_notes=list(examples.notes),
        weights_sha256=subject.sha256,
        weights_notes=list(card.weights_notes),
        flags=sorted(flags),
        flag_rows=flag_rows,
        # A query job's may be that of a source whose answers depend on its batch.
        batch=next((one.batch for one in measured if not isinstance(one, QueryResult) and one.batch is not None), None),
        clean=correct,
        clean_full=None if clean is None else (clean.correct, clean.n),
        clean_full_job="" if clean is None else clean.key,
        chains=[
            assemble.chain_record(
                job.chain, shards, clean_of_chains, "autoattack" if job.backend == "autoattack" else ""
            )
            for name, shards in chains.items()
            for job in finished[name][:1]
        ],
        crafted=_crafted(evaluation, results, correct),
        queried=_queried(evaluation, results, correct),
        corruptions=corruptions.records(evaluation, results, fingerprints or {}),
        clean_job="" if clean_bits is None else clean_bits.key,
        unmeasured_threat=subject.unmeasured_threat,
        preset_of=card.preset_of,
        extends=list(subject.extends),
        variant=subject.variant,
        train_forwards=None if passes is None else passes.forwards,
        train_backwards=None if passes is None else passes.backwards,
        versions=packages(),
        folded=bool(attacked) and all(result.folded for result in next(iter(chains.values()))),
        origin=origin(suite, keep),
        cost=_cost(subject.training, attacked, [*judged, *corrupted, *asked], [*crafted, *asked]),
    )


def _clean(evaluation: Evaluation, results: Results) -> Bits:
    """The examples that are classified correctly without an attack, by a job of their own where there is one, else as a
    chain found them, else a crafted set's judge. InputError where none has finished."""
    clean = results.find(evaluation.clean_bits)
    if clean is not None:
        return Bits(n=clean.n, hex=clean.correct)
    for shards in evaluation.chain_results(results).values():
        return assemble.clean_bits(shards)
    for crafted in evaluation.crafted_sets():
        judged = [result for shard in crafted if (result := results.find(shard.judge)) is not None]
        if len(judged) == len(crafted):
            return Bits.of([right for result in judged for right in result.correct])
    raise InputError(f"{evaluation.victim}: nothing was measured")


def _cost(
    training: TrainResult | None,
    attacked: Sequence[AttackResult],
    judged: Sequence[JudgeResult | CorrectResult | QueryResult],
    held: Sequence[CraftResult | QueryResult],
) -> dict[str, str | int | float]:
    """What varies from machine to machine."""
    cost = assemble.total_cost([*(result.cost for result in attacked), *(result.cost for result in judged)])
    executions = [result.execution for result in (*attacked, *judged)]
    trainings = [training.execution] if training is not None else []
    return {
        "train_seconds": round(sum(execution.seconds for execution in trainings), 2),
        "seconds": round(sum(execution.seconds for execution in executions), 2),
        "wasted": cost.wasted,
        "checks": cost.checks,
        "source_passes": sum(result.cost.backwards for result in held),
        "peak_memory_mb": max(execution.memory_mb for execution in (*trainings, *executions)),
        "halvings": max((result.halvings for result in attacked), default=0),
        "hardware": " / ".join(sorted({execution.hardware for execution in executions})),
    }


def _crafted(evaluation: Evaluation, results: Results, clean: Bits) -> list[CraftedRecord]:
    """The crafted sets of which every shard was judged."""
    return [
        assemble.crafted_record(
            shards[0].source,
            shards[0].craft.threat,
            shards[0].craft.attack,
            [results.of(shard.judge) for shard in shards],
            clean,
            shards[0].craft.attacker_images if isinstance(shards[0].craft, UniversalJob) else "",
        )
        for shards in evaluation.crafted_sets()
        if all(shard.judge.name in results for shard in shards)
    ]


def _queried(evaluation: Evaluation, results: Results, clean: Bits) -> list[QueriedRecord]:
    """The query attacks of which every shard has a result."""
    found = []
    for shards in evaluation.queried_sets():
        first, done = shards[0].job, [results.find(shard.job) for shard in shards]
        whole = [result for result in done if result is not None]
        if len(whole) == len(done):
            start = "" if first.crafted is None else first.crafted.attack.id
            made = (shards[0].source, first.threat, first.attack, shards[0].is_control, start)
            found.append(assemble.queried_record(*made, whole, clean))
    return found


def origin(suite: Suite, keep: Keep) -> Origin:
    """Who ran what: this process's command line and this package's commit."""
    commit, dirty = _commit(Path(__file__).parent.parent)
    return Origin(
        command=[_program(), *sys.argv[1:]],
        commit=commit,
        dirty=dirty,
        suite=suite.model_dump(mode="json", exclude_defaults=True),
        keep_examples=str(keep),
        python=platform.python_version(),
    )


def _program() -> str:
    """What started this process: `transferbench`, also where it was `python -m transferbench.cli`; else the script."""
    script = Path(sys.argv[0])
    return "transferbench" if script.parts[-3:] == ("transferbench", "cli", "__main__.py") else script.name


@cache
def _commit(package: Path) -> tuple[str, bool]:
    """(commit, whether files differ from it) of the checkout that holds the package; ("", False) where none does.

    A package that is installed in some project's virtual environment is no part of that project.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(package), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no", "."))
    except (OSError, subprocess.CalledProcessError):
        return "", False
