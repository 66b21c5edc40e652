"""Results of jobs -> the record of a victim."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.specifications import Chain, Keep
from transferbench.base.versions import packages
from transferbench.data import Dataset
from transferbench.engine.preflight import at_chance
from transferbench.models.cards import ModelCard
from transferbench.results import assemble
from transferbench.results.records import UNTRAINED, CraftedRecord, Origin, Record, dump, read
from transferbench.scheduling.plan import Measured, Shown
from transferbench.suites import Suite


def write_records(root: Path, records: list[Record]) -> None:
    """records/<victim>.json below the folder. One that says nothing new stays, with its origin and its stamp."""
    (root / "records").mkdir(exist_ok=True)
    for record in records:
        path = root / "records" / f"{file_stem(record.victim)}.json"
        if not _known(path, record):
            atomic_files.write_text(path, dump(record))


def _known(path: Path, record: Record) -> bool:
    """Whether a file holds the record already, whoever ran it when."""
    try:
        before = read(path)
    except InputError:
        return False
    varying = {name: getattr(record, name) for name in ("origin", "stamp", "versions", "cost")}
    return before.model_copy(update=varying) == record


def record_of(
    suite: Suite,
    measured: Measured,
    card: ModelCard,
    sha256: str,
    source_dataset: str,
    results: Mapping[str, dict[str, Any]],
    examples: Dataset,
    keep: Keep,
    training: dict[str, Any] | None,
) -> Record:
    """The record of one victim. `results` by job name; `examples` the n attacked; `training` its job's
    result, None for a victim that was not trained in this run. What has no result is left out, and the row that is
    made of it has no rank."""
    finished = measured.finished(results)
    chains = [
        assemble.chain_record(Chain.from_dict(done[0].spec["chain"]), [results[job.name] for job in done], suite.n)
        for done in finished.values()
    ]
    first = [results[job.name] for job in next(iter(finished.values()))]
    evaluated = [results[job.name] for done in finished.values() for job in done]
    evaluated += [results[shown.judge.name] for shown in measured.crafted if shown.judge.name in results]
    clean = results.get(measured.clean.name) if measured.clean is not None else None
    cost = assemble.total_cost(evaluated)
    correct = assemble.clean_bits(first)
    flags = {flag for result in evaluated for flag in result.get("flags", [])}
    if at_chance(correct.count, suite.n, len(card.classes)):
        flags.add("accuracy-at-chance")
    if suite.untrained or card.untrained:
        flags.add(UNTRAINED)
    trainings = [training] if training is not None else []
    return Record(
        suite=suite.name,
        protocol=suite.protocol.description,
        role="source" if measured.role == "source" else "victim",
        victim=measured.name,
        method=card.method,
        # A public model's card may not know what it was made from; then it is what the attacker was given.
        source=card.source or next((shown.source for shown in measured.crafted), ""),
        network=card.network,
        source_dataset=source_dataset,
        target_dataset=measured.dataset,
        seed=measured.seed,
        n=suite.n,
        data_fingerprint=examples.fingerprint,
        class_counts=examples.class_counts(),
        weights_sha256=sha256,
        flags=sorted(flags),
        clean=correct,
        clean_full=None if clean is None else (clean["correct"], clean["n"]),
        clean_full_job="" if clean is None else clean["key"],
        chains=chains,
        crafted=_crafted(measured, results),
        versions=packages(),
        folded=all(result["folded"] for result in first),
        origin=origin(suite, keep),
        cost={
            "train_seconds": round(sum(result["seconds"] for result in trainings), 2),
            "seconds": round(sum(result["seconds"] for result in evaluated), 2),
            "wasted": cost.wasted,
            "checks": cost.checks,
            "peak_memory_mb": max(result["memory"] for result in [*trainings, *evaluated]),
            "halvings": max(result.get("halvings", 0) for result in evaluated),
            "hardware": " / ".join(sorted({result["hardware"] for result in evaluated})),
        },
    )


def _crafted(measured: Measured, results: Mapping[str, dict[str, Any]]) -> list[CraftedRecord]:
    """What was shown whole: every shard of a set has its judging."""
    sets: dict[tuple[str, str, str], list[Shown]] = {}
    for shown in measured.crafted:
        spec = shown.craft.spec
        sets.setdefault((shown.source, spec["norm"], spec["attack"]["id"]), []).append(shown)
    return [
        assemble.crafted_record(
            source,
            shards[0].craft.spec["norm"],
            shards[0].craft.spec["eps"],
            shards[0].craft.spec["attack"],
            [results[shown.judge.name] for shown in shards],
        )
        for (source, *_), shards in sets.items()
        if all(shown.judge.name in results for shown in shards)
    ]


def origin(suite: Suite, keep: Keep) -> Origin:
    """Who ran what: this process's command line and this package's commit."""
    commit, dirty = _commit(Path(__file__).parent.parent)
    return Origin(
        command=[Path(sys.argv[0]).name, *sys.argv[1:]],
        commit=commit,
        dirty=dirty,
        suite=suite.model_dump(mode="json", exclude_defaults=True),
        keep_examples=str(keep),
        python=platform.python_version(),
    )


@cache
def _commit(package: Path) -> tuple[str, bool]:
    """(commit, dirty) of the checkout that the package's own files belong to; ("", False) where there is none.

    A package that lies in some project's virtual environment is no part of that project.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(package), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no", "."))
    except (OSError, subprocess.CalledProcessError):
        return "", False
