"""published.csv and published.md: published numbers next to measured rates of the same thing, with every known
difference. They never enter a rank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transferbench.base import atomic_files
from transferbench.base.ids import APGD_CE, APGD_T, L1_SCREEN, PGD10, PGD20
from transferbench.base.specifications import NORMS, Epsilon
from transferbench.leaderboard.column import Column, Row, build_row
from transferbench.leaderboard.escape import markdown_cell
from transferbench.leaderboard.measurements import Measurements
from transferbench.leaderboard.published_numbers import (
    CLEAN,
    MEASURES,
    PGD_10,
    PGD_20,
    PROVENANCES,
    UNION,
    Published,
    read,
    robustbench,
)
from transferbench.leaderboard.rates import Rate
from transferbench.leaderboard.tables import csv_table, table
from transferbench.results.records import ChainRecord, Record

_CHAINS = {PGD_20: PGD20, PGD_10: PGD10}
"""The chains of measures that are not called as their norm."""


class Comparison(NamedTuple):
    """The context of a row: a published number and the measured rate of the same thing.

    `chain` is the chain the rate was measured with: Linf's for the union, None for clean accuracy.
    """

    record: Record
    number: Published
    rate: Rate
    chain: ChainRecord | None


def _notes(one: Comparison) -> str:
    number = one.number
    provenance = "" if number.robustbench else f"{number.provenance}: {PROVENANCES[number.provenance]}"
    return "; ".join(filter(None, [*_differences(one), *number.notes, provenance]))


def _difference(one: Comparison) -> str:
    # Of -0.0 the sign is no result.
    difference = round(one.rate.points - one.number.value, one.number.decimals) + 0.0
    return f"{difference:+.{one.number.decimals}f}"


COLUMNS: list[Column[Comparison]] = [
    Column("victim", "id of the measured network", lambda one: one.record.victim),
    Column("measure", "what the rate is of", lambda one: one.number.measure),
    Column("eps", "radius of the published number", lambda one: one.number.eps),
    Column("measured", "the rate here, %", lambda one: one.rate.percent),
    Column("low", "lower end of its 95 % Wilson interval, %", lambda one: one.rate.interval[0]),
    Column("high", "upper end, %", lambda one: one.rate.interval[1]),
    Column("n", "attacked test examples here", lambda one: one.record.n),
    Column("published", "the published rate, %", lambda one: f"{one.number.value:.{one.number.decimals}f}"),
    Column("difference", "measured minus published, points", _difference),
    Column("paper", "paper of the number", lambda one: one.number.paper),
    Column("table", "table in the paper", lambda one: one.number.table),
    Column("provenance", "how the published number was read", lambda one: one.number.provenance),
    Column("notes", "every known difference, separated by semicolons", _notes),
]


def compare(records: Sequence[Record], numbers: Sequence[Published]) -> list[Row]:
    """A row for every measured rate that a published number is about, by victim and measure."""
    comparisons = [
        comparison
        for measurements in map(Measurements, records)
        for number in numbers
        if (comparison := _comparison(measurements, number)) is not None and _same(comparison)
    ]
    return sorted(
        (build_row(COLUMNS, comparison) for comparison in comparisons),
        key=lambda row: (row["victim"], MEASURES.index(str(row["measure"])), row["paper"], row["table"]),
    )


def _comparison(measurements: Measurements, number: Published) -> Comparison | None:
    """None where the record lacks the measure."""
    record = measurements.record
    if number.measure == CLEAN:
        return Comparison(record, number, measurements.clean, None)
    if number.measure == UNION:
        union = measurements.union
        return None if union is None else Comparison(record, number, union, record.chain("Linf"))
    chain = record.chain(_CHAINS.get(number.measure, number.measure))
    return None if chain is None else Comparison(record, number, measurements.robust[chain.name], chain)


def _same(one: Comparison) -> bool:
    """Whether method, network, source, target, norm and radius are the same."""
    record, number = one.record, one.number
    if number.robustbench:
        if number.robustbench not in (record.victim, record.source if record.role == "source" else ""):
            return False
    elif (record.method, record.network, record.source_dataset, record.target_dataset) != number[2:6]:
        return False
    if number.measure == UNION:
        chains = [record.chain(norm) for norm in NORMS]
        radii = [Epsilon.parse(chain.eps).value for chain in chains if chain is not None]
        return radii == [Epsilon.parse(eps).value for eps in number.eps.split("|")]
    return one.chain is None or Epsilon.parse(one.chain.eps).value == Epsilon.parse(number.eps).value


def _differences(one: Comparison) -> list[str]:
    """The known differences between here and there, apart from the paper's own notes."""
    record = one.record
    notes = [f"n = {one.rate.n} here", f"images here: {record.images}"]
    if record.head:
        notes.append("classifier here: " + ("the source's" if record.head == "kept" else "new"))
    if record.batch is not None:
        notes.append(f"answers here depend on the batch, of {record.batch}")
    if one.chain is not None and one.number.measure not in _CHAINS:
        attacks = [attack for attack in one.chain.attacks if attack["id"] != L1_SCREEN]
        if attacks != [{"id": APGD_CE}, {"id": APGD_T}]:
            notes.append(f"protocol here: {record.protocol}")
    if record.source and not one.number.robustbench:
        notes.append(f"source here: {record.source}")
    if record.flags:
        notes.append(f"flags here: {', '.join(record.flags)}")
    return notes


def render(rows: Sequence[Row], candidates: int, with_robustbench: bool) -> dict[str, str]:
    """File name -> content: the rows of `compare` among so many candidates, notes as footnotes."""
    footnote_of: dict[str, int] = {}
    lines = []
    for row in rows:
        marks = [footnote_of.setdefault(note, len(footnote_of) + 1) for note in str(row["notes"]).split("; ")]
        cells = [markdown_cell(row["victim"]), str(row["measure"]), markdown_cell(row["eps"])]
        cells += [f"{row['measured']} [{row['low']}, {row['high']}]", str(row["published"]), str(row["difference"])]
        lines.append([*cells, markdown_cell(f"{row['paper']}, {row['table']}"), ", ".join(map(str, marks))])
    header = ["victim", "measure", "eps", "measured", "published", "difference", "from", "notes"]
    comparison = (
        table(header, lines, 3)
        if rows
        else f"None of the {candidates} published numbers that our words exist for is about a row of this table: "
        "method, network, source, target, norm, radius and protocol must be the same."
    )
    missing = (
        "" if with_robustbench else "RobustBench's own numbers were not given (`--robustbench` names a checkout).\n\n"
    )
    footnotes = "\n".join(f"{number}. {markdown_cell(note)}" for note, number in footnote_of.items())
    title = "# Published numbers beside measured ones\n\nNone of them enters a rank."
    page = f"{title}\n\n{missing}{comparison}\n\n{footnotes}".rstrip("\n") + "\n"
    return {"published.csv": csv_table(COLUMNS, rows), "published.md": page}


def write(folder: Path, records: Sequence[Record], file: Path | None, checkout: Path | None) -> list[Path]:
    """published.csv and published.md in a board's folder, from a published.csv, a checkout of RobustBench, or both."""
    numbers = [*(read(file) if file is not None else []), *(robustbench(checkout) if checkout is not None else [])]
    paths = []
    for name, content in render(compare(records, numbers), len(numbers), checkout is not None).items():
        atomic_files.write_text(folder / name, content)
        paths.append(folder / name)
    return paths
