"""External evaluations beside our own: external.csv and a section of leaderboard.md. None of them enters a rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transferbench.leaderboard.column import Column, Row, build_row
from transferbench.leaderboard.escape import markdown_cell
from transferbench.leaderboard.rates import Rate
from transferbench.leaderboard.tables import table
from transferbench.results.external import ExternalEvaluation
from transferbench.results.records import Record


class Judged(NamedTuple):
    """The context of a row: an external evaluation and the record of its victim."""

    record: Record
    external: ExternalEvaluation

    @property
    def robust(self) -> Rate:
        """By the points as they were judged here, or by the claimed verdicts."""
        return Rate(self.record.clean_of_chains.count - self.external.fooled.count, self.record.n_chains)

    @property
    def own(self) -> Rate | None:
        """By our own chain under the same threat."""
        chain = self.external.chain(self.record)
        return None if chain is None else Rate(chain.robust.count, chain.robust.n)

    @property
    def best_known(self) -> Rate | None:
        """The examples that survive both; None for a claim, and without a chain of ours."""
        chain = self.external.chain(self.record)
        if chain is None or self.external.evidence == "verdicts":
            return None
        return Rate((chain.robust.number & ~self.external.fooled.number).bit_count(), self.record.n_chains)


def _percent(rate: Rate | None) -> str:
    return "" if rate is None else rate.percent


def _whole(one: Judged, place: int) -> str:
    return "" if one.external.whole is None else str(one.external.whole[place])


EXTERNAL: list[Column[Judged]] = [
    Column("victim", "id of the attacked network", lambda one: one.external.victim),
    Column("by", "whose evaluation it is", lambda one: one.external.by),
    Column("link", "where it is described", lambda one: one.external.link),
    Column("norm", "norm of its points", lambda one: one.external.norm),
    Column("eps", "their radius", lambda one: one.external.eps),
    Column(
        "evidence",
        "points: adversarial points, judged here by the original model; verdicts: a claim that nobody checked",
        lambda one: one.external.evidence,
    ),
    Column("n", "examples, those of the record's chains", lambda one: one.record.n_chains),
    Column(
        "claimed",
        "the robust accuracy that was claimed, %",
        lambda one: "" if one.external.claimed is None else f"{one.external.claimed:.2f}",
    ),
    Column("robust_acc", "right on clean and not fooled, of n, %", lambda one: one.robust.percent),
    Column("robust_acc_low", "lower end of its 95 % Wilson interval, %", lambda one: one.robust.interval[0]),
    Column("robust_acc_high", "upper end, %", lambda one: one.robust.interval[1]),
    Column("inadmissible", "points outside the ball or the box: no attack", lambda one: one.external.inadmissible),
    Column("own_acc", "accuracy under our own chain of the norm and radius, %", lambda one: _percent(one.own)),
    Column("best_known", "share that survives both, %; empty for a claim", lambda one: _percent(one.best_known)),
    Column("whole_robust", "of all points of the file: right on clean and not fooled", lambda one: _whole(one, 0)),
    Column("whole", "points of the file", lambda one: _whole(one, 1)),
    Column("sha256", "of the file that was imported", lambda one: one.external.sha256),
]


def rows(records: Sequence[Record], externals: Sequence[ExternalEvaluation]) -> list[Row]:
    """Rows of external.csv, by victim, norm and author."""
    record_of = {record.victim: record for record in records}
    ordered = sorted(externals, key=lambda one: (one.victim, one.norm, one.by))
    return [build_row(EXTERNAL, Judged(record_of[one.victim], one)) for one in ordered]


def markdown(records: Sequence[Record], externals: Sequence[ExternalEvaluation]) -> str:
    """The section; empty without any."""
    lines = []
    for row in rows(records, externals):
        names = [markdown_cell(row[name]) for name in ("victim", "by", "norm", "eps", "evidence")]
        rate = f"{row['robust_acc']} [{row['robust_acc_low']}, {row['robust_acc_high']}]"
        lines.append([*names, str(row["claimed"]), rate, str(row["own_acc"]), str(row["best_known"])])
    if not lines:
        return ""
    header = ["victim", "by", "norm", "eps", "evidence", "claimed", "robust", "ours", "best known"]
    return (
        "## External evaluations\n\nWhat attacks of others did, on the same n examples, %. *points*: their adversarial "
        "points, judged here by the original model, with points outside the ball or the box as no attack; *verdicts*: "
        "a claim that nobody checked, in no best known figure. Ranks are of our own chains alone. More: "
        "external.csv.\n\n" + table(header, lines, 5)
    )
