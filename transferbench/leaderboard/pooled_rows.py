"""A row per method and source, over its seeds: means and ranges, who is told apart from whom, and the difference to
plain fine-tuning. methods.csv and the page's first table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from transferbench.leaderboard.column import Cell, Column, Row, build_row
from transferbench.leaderboard.columns import LEADERBOARD, RANK, UNION
from transferbench.leaderboard.families import BoardColumn
from transferbench.leaderboard.letters import letters
from transferbench.leaderboard.measurements import union
from transferbench.leaderboard.pooling import PooledRows, pooled, rank_range, values
from transferbench.leaderboard.rows import comparable
from transferbench.leaderboard.seeds import PairedCounts, paired
from transferbench.leaderboard.statistics import holm
from transferbench.results.records import Record

LEVEL = 0.05
MOST_COMPARED = 60
"""Rows of one target that are compared pair by pair: 60 are 1770 pairs. Of more none has letters."""
BASELINE = "finetune"
"""The method that others are compared with: plain fine-tuning of the same source."""

Verdicts = dict[int, NDArray[np.bool_]]
"""Survivors of all norms by seed."""


@dataclass(frozen=True)
class PooledRow:
    """The context of a row: the rows of its seeds, and how it compares with others of its target.

    `letters`: rows that share one are not told apart in union accuracy; empty where nothing was compared. `beats` and
    `beaten_by` are labels. `baseline` is the victim that `gain` compares it with: its union less the baseline's, over
    the seeds that both have.
    """

    label: str
    source: str
    rows: list[Row]
    letters: str = ""
    beats: tuple[str, ...] = ()
    beaten_by: tuple[str, ...] = ()
    baseline: str = ""
    gain: PairedCounts | None = None

    @property
    def seeds(self) -> list[int]:
        return sorted(int(row["seed"]) for row in self.rows)


def _mean(column: BoardColumn) -> Column[PooledRow]:
    """The mean over seeds, or the different texts."""

    def value(one: PooledRow) -> Cell:
        if column.text:
            return ", ".join(sorted({str(row[column.name]) for row in one.rows} - {""}))
        numbers = values(one.rows, column.name)
        return f"{mean(numbers):.2f}" if numbers else ""

    ends = None if column.text else (f"{column.name}_min", f"{column.name}_max")
    return Column(
        column.name,
        f"mean over seeds: {column.meaning}",
        value,
        column.heading,
        norm=column.norm,
        text=column.text,
        interval=ends,
        optional=True,
    )


def _extreme(column: BoardColumn, largest: bool) -> Column[PooledRow]:
    name = f"{column.name}_{'max' if largest else 'min'}"

    def value(one: PooledRow) -> Cell:
        numbers = values(one.rows, column.name)
        return f"{(max if largest else min)(numbers):.2f}" if numbers else ""

    return Column(name, f"{'largest' if largest else 'smallest'} {column.name} of a seed", value, optional=True)


def _of_first(name: str) -> Column[PooledRow]:
    column = next(column for column in LEADERBOARD if column.name == name)
    return Column(name, column.meaning, lambda one: one.rows[0][name], text=column.text)


def _gain(place: int) -> Column[PooledRow]:
    names = ("less_finetune", "less_finetune_low", "less_finetune_high")
    meanings = (
        "union_acc less that of plain fine-tuning of the same source, on the same images, mean over the seeds that "
        "both have, points",
        "lower end of its 95 % interval for paired proportions, with the image as the unit, points",
        "upper end, points",
    )

    def value(one: PooledRow) -> Cell:
        if one.gain is None:
            return ""
        return f"{100 * (one.gain.difference, one.gain.low, one.gain.high)[place] + 0.0:+.2f}"

    heading = "" if place else "less fine-tuning"
    return Column(names[place], meanings[place], value, heading, interval=None if place else names[1:])


_SUMMARY = [column for column in LEADERBOARD if column.summary and column is not UNION]
METHODS: list[Column[PooledRow]] = [
    Column("rank", f"ranks over seeds; within a seed: {RANK.meaning}", lambda one: rank_range(one.rows), "rank"),
    _mean(UNION),
    Column(
        "method",
        "transfer method (plugin), with the victim's name where several are alike",
        lambda one: one.label,
        "method",
        text=True,
    ),
    Column(
        "source",
        "the pre-trained network it started from, without its seed",
        lambda one: one.source,
        "source",
        text=True,
    ),
    Column(
        "letters",
        "rows of one target that share a letter are not told apart in union accuracy over their seeds (exact "
        "conditional test with the image as the unit, Holm-corrected over all pairs, at .05; compact letter display)",
        lambda one: one.letters,
        "groups",
        text=True,
    ),
    *(_gain(place) for place in range(3)),
    _of_first("target_dataset"),
    _of_first("suite"),
    Column("seeds", "seeds of its trainings", lambda one: " ".join(map(str, one.seeds)), "seeds", text=True),
    _of_first("n"),
    *(_mean(column) for column in _SUMMARY),
    Column("baseline", "the row that is meant by plain fine-tuning", lambda one: one.baseline, text=True),
    *(_extreme(column, largest) for column in (UNION, *_SUMMARY) if not column.text for largest in (False, True)),
]


def pooled_rows(records: Sequence[Record], rows: Sequence[Row]) -> list[PooledRow]:
    """The rows over seeds, by target, best mean union first."""
    record_of = {record.victim: record for record in records}
    pools = pooled(rows)
    found = [PooledRow(pool.label, pool.source, pool.rows) for pool in pools]
    groups: dict[object, dict[int, Verdicts]] = {}
    for place, pool in enumerate(pools):
        key, verdicts = _verdicts(pool, record_of)
        if verdicts:
            groups.setdefault(key, {})[place] = verdicts
    for group in groups.values():
        for place, row in _with_gains(found, group).items():
            found[place] = row
        if 1 < len(group) <= MOST_COMPARED:
            for place, row in _with_letters(found, group).items():
                found[place] = row
    return found


def _verdicts(pool: PooledRows, record_of: dict[str, Record]) -> tuple[object, Verdicts]:
    """(what it can be compared with, its verdicts); no verdicts where a seed has no rank, or another measurement."""
    own = [record_of[str(row["victim"])] for row in pool.rows]
    keys = {comparable(record) for record in own}
    if len(keys) > 1 or any(row["rank"] == "" for row in pool.rows):
        return None, {}
    bits = {record.seed: whole for record in own if (whole := union(record)) is not None}
    return keys.pop(), {seed: np.array(whole.list(), dtype=np.bool_) for seed, whole in bits.items()}


def _paired(first: Verdicts, second: Verdicts) -> PairedCounts | None:
    """Over the seeds that both have; None without one."""
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    return paired(*(np.stack([one[seed] for seed in common]) for one in (first, second)))


def _with_letters(rows: Sequence[PooledRow], group: dict[int, Verdicts]) -> dict[int, PooledRow]:
    """The group's rows, best first, with their letters and whom they beat."""
    places = list(group)
    pairs = [
        (a, b, counts)
        for a, b in combinations(range(len(places)), 2)
        if (counts := _paired(group[places[a]], group[places[b]])) is not None
    ]
    adjusted = holm([counts.p for _, _, counts in pairs])
    different = [(a, b, counts) for (a, b, counts), p in zip(pairs, adjusted, strict=True) if p < LEVEL]
    beats: dict[int, list[str]] = {place: [] for place in places}
    beaten: dict[int, list[str]] = {place: [] for place in places}
    for a, b, counts in different:
        winner, loser = (places[a], places[b]) if counts.difference > 0 else (places[b], places[a])
        beats[winner].append(_name(rows[loser]))
        beaten[loser].append(_name(rows[winner]))
    shown = letters(len(places), [(a, b) for a, b, _ in different])
    return {
        place: replace(rows[place], letters=text, beats=tuple(beats[place]), beaten_by=tuple(beaten[place]))
        for place, text in zip(places, shown, strict=True)
    }


def _name(row: PooledRow) -> str:
    return f"{row.label} of {row.source}" if row.source else row.label


def _with_gains(rows: Sequence[PooledRow], group: dict[int, Verdicts]) -> dict[int, PooledRow]:
    """The group's rows with their difference to plain fine-tuning of the same source, where it is in the group."""
    baselines: dict[str, int] = {}
    for place in sorted(group, key=lambda place: str(rows[place].rows[0]["victim"])):
        if rows[place].rows[0]["method"] == BASELINE:
            baselines.setdefault(rows[place].source, place)
    changed = {}
    for place, verdicts in group.items():
        at = baselines.get(rows[place].source)
        if at is not None and at != place:
            gain = _paired(verdicts, group[at])
            changed[place] = replace(rows[place], baseline=rows[at].label, gain=gain)
    return changed


def methods(records: Sequence[Record], rows: Sequence[Row]) -> list[Row]:
    """Rows of methods.csv."""
    return [build_row(METHODS, one) for one in pooled_rows(records, rows)]
