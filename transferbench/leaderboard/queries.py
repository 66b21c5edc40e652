"""Attacks that hold the source and ask the victim a few times: success within so many queries, beside the control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean
from typing import NamedTuple

from transferbench.base.query_rates import BUDGETS
from transferbench.leaderboard import paired
from transferbench.leaderboard.column import Column, Row, build_row
from transferbench.leaderboard.escape import markdown_cell
from transferbench.leaderboard.pooling import Series, labelled
from transferbench.leaderboard.rates import percent
from transferbench.leaderboard.tables import table
from transferbench.results.records import QueriedRecord, Record


class Asked(NamedTuple):
    """The context of a row: an attack and its control within so many queries."""

    record: Record
    attack: QueriedRecord
    control: QueriedRecord | None
    within: int

    @property
    def fooled(self) -> int:
        return self.attack.fooled(self.within).bit_count()

    @property
    def correct(self) -> int:
        return self.record.clean.count

    @property
    def difference(self) -> paired.Ends | None:
        """In points, with the ends of its interval: the attack's rate less the control's."""
        if self.control is None or not self.correct:
            return None
        return paired.difference(self.attack.fooled(self.within), self.control.fooled(self.within), self.correct)


def _control_rate(one: Asked) -> str:
    return "" if one.control is None else percent(one.control.fooled(one.within).bit_count(), one.correct)


QUERIES: list[Column[Asked]] = [
    Column("victim", "id of the attacked network", lambda one: one.record.victim),
    Column("source", "the public network that the attacker holds", lambda one: one.attack.source),
    Column("attack", "what asks", lambda one: one.attack.attack["id"]),
    Column("start", "the attack at whose points it begins; empty: at the image", lambda one: one.attack.start),
    Column("norm", "its threat", lambda one: one.attack.norm),
    Column("eps", "its radius", lambda one: one.attack.eps),
    Column("budget", "queries per example, at most", lambda one: one.attack.budget),
    Column("queries", "within so many of them", lambda one: one.within),
    Column("correct", "examples that were correct on clean", lambda one: one.correct),
    Column("fooled", "of them fooled", lambda one: one.fooled),
    Column("rate", "fooled of correct, %", lambda one: percent(one.fooled, one.correct)),
    Column("control_rate", "the same search without the source, %", _control_rate),
    *paired.columns("rate less control_rate"),
]


def asked(record: Record) -> Iterator[Asked]:
    """Every query attack of a victim at every number of queries that its budget holds."""
    for attack in record.queried:
        if attack.is_control:
            continue
        controls = [
            one
            for one in record.queried
            if one.is_control
            and (one.attack["id"], one.source, one.norm) == (attack.attack["id"], attack.source, attack.norm)
        ]
        for within in BUDGETS:
            if within <= attack.budget:
                yield Asked(record, attack, next(iter(controls), None), within)


def rows(records: Sequence[Record]) -> list[Row]:
    """Rows of queries.csv, by victim."""
    ordered = sorted(records, key=lambda record: (record.victim, record.suite))
    return [build_row(QUERIES, one) for record in ordered for one in asked(record)]


def markdown(records: Sequence[Record]) -> str:
    """Success over queries of every attack, a line per victim; empty without any."""
    victims = sorted((one for one in records if one.queried), key=lambda record: (record.victim, record.suite))
    if not victims:
        return ""
    named = labelled(victims)
    label_of = dict(named.values())
    found: dict[str, dict[Series, list[Asked]]] = {}
    for record in victims:
        for one in asked(record):
            found.setdefault(one.attack.attack["id"], {}).setdefault(named[record.victim][0], []).append(one)
    parts = []
    for attack, by_series in found.items():
        budgets = sorted({one.within for several in by_series.values() for one in several})
        lines = []
        for series, several in sorted(by_series.items(), key=lambda item: (item[0].source, label_of[item[0]])):
            cells = [_cell([one for one in several if one.within == within]) for within in budgets]
            last = [one.difference for one in several if one.within == budgets[-1] and one.difference is not None]
            gap = [mean(ends) for ends in zip(*last, strict=True)]
            text = f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]" if gap else ""
            lines.append([markdown_cell(label_of[series]), markdown_cell(series.source), *cells, text])
        header = ["method", "source", *(f"within {within}" for within in budgets), f"less control, {budgets[-1]}"]
        parts.append(f"### `{markdown_cell(attack)}`\n\n{table(header, lines, 2)}")
    return (
        "## A few queries\n\nShare of the clean-correct examples that an attacker fools who holds the source and reads "
        "the victim's scores at so many points, %, mean over seeds; in brackets its control, the same search without "
        "the source; last the paired difference in points with its 95 % interval. The first query is the point where "
        "the attack begins. More: queries.csv.\n\n" + "\n\n".join(parts)
    )


def _cell(several: Sequence[Asked]) -> str:
    measured = [one for one in several if one.correct]
    if not measured:
        return ""
    rate = mean(100 * one.fooled / one.correct for one in measured)
    controls = [one.control.fooled(one.within).bit_count() / one.correct for one in measured if one.control is not None]
    return f"{rate:.1f}" + (f" ({100 * mean(controls):.1f})" if controls else "")
