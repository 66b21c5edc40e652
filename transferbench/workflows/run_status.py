"""The status of a run: its plan with the state of every job, and the verdicts of every example as CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.base.results import AttackResult
from transferbench.store.reader import Reader

COLUMNS = ("run", "chain", "norm", "eps", "seed", "example", "fooled", "attack", "try", "pred", "distance", "tie",
           "dataset")  # fmt: skip
"""Of the export. `run` is the job's label up to the colon (the victim), `example` the id in its data set's order,
`attack` is `clean` for an example that was wrong before any attack and empty for a survivor, `dataset` the id of the
attacked data set."""
ATTACK = "attack"
"""The kind of jobs/attack.py, whose import would load torch."""
_OPEN = ("running", "interrupted", "failed", "missing")


def describe(reader: Reader) -> list[str]:
    """Lines: one for every job of the last plan that is not done, then the count of each state."""
    planned, finished = reader.planned(), list(reader.specifications())
    width = max((len(job.label) for job in planned), default=0)
    lines = [
        f"{job.state:<12} {job.kind:<7} {job.label:<{width}}  {job.note}".rstrip()
        for job in planned
        if job.state in _OPEN
    ]
    states = Counter(job.state for job in planned)
    counts = ", ".join(f"{states[state]} {state}" for state in ("done", *_OPEN) if states[state])
    driver = "a driver is running it" if reader.has_driver() else "no driver is running it"
    plan = f"the last plan has {len(planned)} jobs: {counts}" if planned else "no plan was made here"
    # An attack has a verdict for each of its examples; results are not read for their number.
    examples = sum(specification.examples for kind, specification in finished if kind == ATTACK)
    return [*lines, f"{plan}; {driver}", f"in all {len(finished)} finished jobs with {examples} verdicts are kept"]


def verdict_rows(reader: Reader) -> Iterator[tuple[Any, ...]]:
    """A row of COLUMNS for every verdict of the last plan's finished attacks (of all, where there was no plan)."""
    keys = {job.key for job in reader.planned()}
    for job in reader.each(ATTACK):
        if keys and job.key not in keys:
            continue
        chain, victim = job.specification.chain, job.label.rpartition(": ")[0]
        common = (victim, chain.name, chain.threat.norm, chain.threat.eps.text, job.specification.seed)
        for verdict in job.result(AttackResult).verdicts:
            yield (*common, *verdict, job.specification.dataset)


def write_verdicts(reader: Reader, path: Path) -> int:
    """Write `verdict_rows` as CSV; how many there are. InputError where the file cannot be written."""
    rows = 0

    def fill(temporary: Path) -> None:
        nonlocal rows
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in verdict_rows(reader):
                writer.writerow(row)
                rows += 1

    try:
        atomic_files.write(path, fill)
    except OSError as error:
        raise InputError(f"--verdicts {path}: cannot be written ({error.strerror})") from None
    return rows
