"""Rows over seeds: what one line of a table or one mark of a figure stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import mean
from typing import NamedTuple

from transferbench.base.ids import without_seed
from transferbench.leaderboard.column import Row
from transferbench.leaderboard.columns import UNION
from transferbench.results.records import Record


class Series(NamedTuple):
    """A victim over its seeds: its name, method and source without the seed, and its target."""

    victim: str
    method: str
    source: str
    target: str

    @classmethod
    def of(cls, victim: str, method: str, source: str, target: str, seed: int) -> Series:
        return cls(without_seed(victim, seed), method, without_seed(source, seed), target)


class PooledRows(NamedTuple):
    """The rows of a series, with the label and the source that name it."""

    label: str
    source: str
    rows: list[Row]


def labelled(victims: Sequence[Record]) -> dict[str, tuple[Series, str]]:
    """The series of each victim, and its label, by the victim's id."""
    series_of = {
        one.victim: Series.of(one.victim, one.method, one.source, one.target_dataset, one.seed) for one in victims
    }
    label_of = labels(series_of.values())
    return {victim: (series, label_of[series]) for victim, series in series_of.items()}


def labels(series: Iterable[Series]) -> dict[Series, str]:
    """The label of each series next to its source: its method, with the target where there are several, and with
    the victim's own name where several victims have the same method, source and target."""
    distinct = set(series)
    several_targets = len({one.target for one in distinct}) > 1
    alike = Counter(one[1:] for one in distinct)
    label_of = {}
    for one in distinct:
        label = one.method if alike[one[1:]] == 1 else f"{one.method} ({one.victim})"
        label_of[one] = f"{label} on {one.target}" if several_targets else label
    return label_of


def pooled(rows: Sequence[Row]) -> list[PooledRows]:
    """The rows by series, by target, best mean union first."""

    def series(row: Row) -> Series:
        victim, method, source, target = (str(row[name]) for name in ("victim", "method", "source", "target_dataset"))
        return Series.of(victim, method, source, target, int(row["seed"]))

    def order(row: Row) -> tuple[str, ...]:
        victim, method, source, target = series(row)
        return target, method, source, victim

    label_of = labels(map(series, rows))
    groups = [(key, list(group)) for key, group in groupby(sorted(rows, key=order), key=series)]
    groups.sort(key=lambda group: (group[0].target, -(average(group[1], UNION.name) or -1.0)))
    return [PooledRows(label_of[key], key.source, group) for key, group in groups]


def values(rows: Sequence[Row], column: str) -> list[float]:
    """The numbers of a column, of the rows that have one."""
    return [float(row[column]) for row in rows if row[column] != ""]


def average(rows: Sequence[Row], column: str) -> float | None:
    """The mean of a column; None where no row has a number."""
    numbers = values(rows, column)
    return mean(numbers) if numbers else None


def rank_range(rows: Sequence[Row]) -> str:
    """`1` or `3-4`: the ranks over seeds; empty where no row has one."""
    ranks = sorted({int(row["rank"]) for row in rows if row["rank"] != ""})
    return "" if not ranks else str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"
