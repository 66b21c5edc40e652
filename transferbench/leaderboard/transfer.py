"""The transfer matrix: what every source's crafted sets do to every victim, with noise counted in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

from transferbench.base.ids import RANDOM_SIGN, without_seed
from transferbench.leaderboard.column import Column, Row, build_row
from transferbench.leaderboard.escape import markdown_cell
from transferbench.leaderboard.pooling import Series, labels
from transferbench.leaderboard.rates import Rate
from transferbench.leaderboard.tables import table
from transferbench.results.records import CraftedRecord, Record


class Transfer(NamedTuple):
    """The context of a row: a crafted set judged on a victim."""

    record: Record
    crafted: CraftedRecord

    @property
    def rate(self) -> Rate:
        return Rate(self.crafted.any_of(), self.record.clean.count)

    @property
    def own(self) -> bool:
        return self.crafted.source == self.record.source


def _attack(transfer: Transfer) -> str:
    id, threat = transfer.crafted.attack["id"], transfer.crafted.norm
    return id if threat == "Linf" else f"{id}@{threat}"


def _noise(transfer: Transfer) -> str:
    control = transfer.record.control(transfer.crafted.norm)
    tries = len(transfer.crafted.flips)
    return "" if control is None else Rate(control.any_of(tries), transfer.record.clean.count).percent


TRANSFER: list[Column[Transfer]] = [
    Column("victim", "id of the trained network that was attacked with the set", lambda one: one.record.victim),
    Column("source", "the pre-trained network it was made with", lambda one: one.crafted.source),
    Column("own", "yes where the victim was fine-tuned from that source", lambda one: "yes" if one.own else "no"),
    Column("attack", "how it was made; @ names its threat where that is not Linf", _attack),
    Column("tries", "points per example", lambda one: len(one.crafted.flips)),
    Column("flipped", "examples that were correct on clean and wrong at any of them", lambda one: one.rate.successes),
    Column("correct", "examples that were correct on clean", lambda one: one.rate.n),
    Column("asr", "flipped of correct, %", lambda one: one.rate.percent),
    Column("asr_low", "lower end of its 95 % Wilson interval, %", lambda one: one.rate.interval[0]),
    Column("asr_high", "upper end, %", lambda one: one.rate.interval[1]),
    Column("noise_asr", "the same for as many draws of random signs, %", _noise),
]


def rows(records: Sequence[Record]) -> list[Row]:
    """Rows of transfer.csv: every crafted set that a victim was attacked with, by attack, victim and source."""
    transfers = [Transfer(record, crafted) for record in records for crafted in record.crafted]
    transfers = [transfer for transfer in transfers if not transfer.crafted.is_control]
    return sorted(
        (build_row(TRANSFER, transfer) for transfer in transfers),
        key=lambda row: (row["attack"], row["victim"], row["own"] != "yes", row["source"]),
    )


class MatrixRow(NamedTuple):
    """Mean rates over seeds, % of the clean-correct: by the source that made the set, and of the noise."""

    method: str
    own: str
    rates: dict[str, float]
    noise: float | None


def matrices(records: Sequence[Record]) -> dict[str, list[MatrixRow]]:
    """By attack: a row for every (method, own source), sources without their seed."""
    by_victim = {record.victim: record for record in records if record.role == "victim"}
    series_of = {
        name: Series.of(name, one.method, one.source, one.target_dataset, one.seed) for name, one in by_victim.items()
    }
    label_of = labels(series_of.values())
    cells: dict[str, dict[tuple[str, str], dict[str, list[float]]]] = {}
    for row in rows(records):
        record = by_victim.get(str(row["victim"]))
        if record is None or row["asr"] == "":
            continue
        series = series_of[record.victim]
        key = series.source, label_of[series]
        line = cells.setdefault(str(row["attack"]), {}).setdefault(key, {})
        line.setdefault(without_seed(str(row["source"]), record.seed), []).append(float(row["asr"]))
        if row["noise_asr"] != "":
            line.setdefault(RANDOM_SIGN, []).append(float(row["noise_asr"]))
    matrix_of: dict[str, list[MatrixRow]] = {}
    for attack, lines in cells.items():
        for (own, method), rates in sorted(lines.items()):
            means = {source: mean(numbers) for source, numbers in rates.items()}
            noise = means.pop(RANDOM_SIGN, None)
            matrix_of.setdefault(attack, []).append(MatrixRow(method, own, means, noise))
    return matrix_of


def markdown(records: Sequence[Record]) -> str:
    """The matrices as tables, own sources in bold; empty where nothing was crafted."""
    parts = []
    for attack, matrix in matrices(records).items():
        sources = sorted({source for line in matrix for source in line.rates})
        lines = []
        for line in matrix:
            rates = {source: f"{rate:.2f}" for source, rate in line.rates.items()}
            if line.own in rates:
                rates[line.own] = f"**{rates[line.own]}**"
            cells = [rates.get(name, "") for name in sources]
            noise = "" if line.noise is None else f"{line.noise:.2f}"
            lines.append([markdown_cell(line.method), markdown_cell(line.own), *cells, noise])
        header = ["method", "own source", *(f"made with {markdown_cell(source)}" for source in sources), "noise"]
        parts.append(f"### `{markdown_cell(attack)}`\n\n{table(header, lines, 2)}")
    if not parts:
        return ""
    return (
        "## Transfer matrix\n\nShare of the clean-correct examples that a set made with one source alone flips (any of "
        "its tries), %, mean over seeds; bold: the source the victim was fine-tuned from; noise: as many draws of "
        "random signs. Every set with its interval: transfer.csv.\n\n" + "\n\n".join(parts)
    )
