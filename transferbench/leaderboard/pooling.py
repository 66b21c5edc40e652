"""Rows over seeds: what stands together in one line of a table or one mark of a figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import mean
from typing import NamedTuple

from transferbench.leaderboard.rows import Row


class Line(NamedTuple):
    """A victim over its seeds: by its name, its method and its source without their seed, and its target."""

    victim: str
    method: str
    source: str
    target: str

    @classmethod
    def of(cls, victim: str, method: str, source: str, target: str, seed: int) -> Line:
        return cls(victim.removesuffix(f"-s{seed}"), method, source.removesuffix(f"-s{seed}"), target)


def labels(lines: Iterable[Line]) -> dict[Line, str]:
    """What a line is called beside its source: its method, with its target where there are several, and with the
    victim's own name where several victims have the same method, source and target."""
    known = set(lines)
    several = len({line.target for line in known}) > 1
    alike = Counter(line[1:] for line in known)
    found = {}
    for line in known:
        label = line.method if alike[line[1:]] == 1 else f"{line.method} ({line.victim})"
        found[line] = f"{label} on {line.target}" if several else label
    return found


def pooled(rows: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """(label, source without its seed, rows over seeds) by target, best mean union first."""

    def line(row: Row) -> Line:
        victim, method, source, target = (str(row[name]) for name in ("victim", "method", "source", "target_dataset"))
        return Line.of(victim, method, source, target, int(row["seed"]))

    def order(row: Row) -> tuple[str, ...]:
        victim, method, source, target = line(row)
        return target, method, source, victim

    named = labels(map(line, rows))
    groups = [(key, list(group)) for key, group in groupby(sorted(rows, key=order), key=line)]
    groups.sort(key=lambda group: (group[0].target, -(average(group[1], "union_acc") or -1.0)))
    return [(named[key], key.source, group) for key, group in groups]


def values(rows: Sequence[Row], column: str) -> list[float]:
    """The column's numbers, of the rows that have one."""
    return [float(row[column]) for row in rows if row[column] != ""]


def average(rows: Sequence[Row], column: str) -> float | None:
    """Their mean; None where there is none."""
    found = values(rows, column)
    return mean(found) if found else None
