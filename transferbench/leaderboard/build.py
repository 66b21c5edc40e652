"""A leaderboard's folder: records in, leaderboard.csv, cost.csv, leaderboard.md and cards out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.leaderboard import (
    downloads,
    extensions,
    external,
    image_files,
    markdown,
    notes,
    queries,
    source_only,
    transfer,
)
from transferbench.leaderboard.column import Column, Row, present
from transferbench.leaderboard.columns import COST, LEADERBOARD, VICTIM
from transferbench.leaderboard.escape import markdown_cell
from transferbench.leaderboard.families import RateColumn
from transferbench.leaderboard.measurements import Measurements
from transferbench.leaderboard.pooled_rows import METHODS, methods
from transferbench.leaderboard.rows import cost_rows, leaderboard_rows
from transferbench.leaderboard.tables import csv_table, table
from transferbench.models import cards
from transferbench.models.cards import CardResult, ModelCard
from transferbench.results.external import ExternalEvaluation
from transferbench.results.external import read_all as read_externals
from transferbench.results.records import Record, read_all, stamped


def render(records: Sequence[Record], externals: Sequence[ExternalEvaluation] = (), text: str = "") -> dict[str, str]:
    """File name -> content, a pure function of records, external evaluations and the board's notes: building twice
    gives the same bytes."""
    rows = leaderboard_rows(records)
    over_seeds = methods(records, rows)
    return {
        "leaderboard.csv": csv_table(present(LEADERBOARD, rows), rows),
        "methods.csv": csv_table(present(METHODS, over_seeds), over_seeds),
        "leaderboard.json": downloads.json_text(over_seeds, rows),
        "cost.csv": csv_table(COST, cost_rows(records)),
        "transfer.csv": csv_table(transfer.TRANSFER, transfer.rows(records)),
        "source_only.csv": csv_table(source_only.SOURCE_ONLY, source_only.rows(records)),
        **_where_measured("queries.csv", queries.QUERIES, queries.rows(records)),
        **_where_measured("extensions.csv", extensions.EXTENSIONS, extensions.rows(records)),
        **_where_measured("image_files.csv", image_files.IMAGE_FILES, image_files.rows(records)),
        **_where_measured("external.csv", external.EXTERNAL, external.rows(records, externals)),
        "leaderboard.md": markdown.render(records, rows, externals, text),
    }


def _where_measured(name: str, columns: Sequence[Column[Any]], rows: Sequence[Row]) -> dict[str, str]:
    """The file, where there is a row."""
    return {name: csv_table(columns, rows)} if rows else {}


def write(folder: Path, records: Sequence[Record]) -> None:
    """Write the tables, each atomically, with the folder's external evaluations."""
    for name, content in render(records, read_externals(folder, records), notes.read(folder)).items():
        atomic_files.write_text(folder / name, content)
    downloads.write_parquet(folder, leaderboard_rows(records))


def rebuild(folder: Path) -> list[Record]:
    """Write the tables of a folder from its records; returns them. InputError when it has none."""
    records = read_all(folder)
    write(folder, records)
    return records


def stamp_complaint(folder: Path, record: Record) -> str:
    """What to do about a record that nobody has verified, or that changed since."""
    state = "was never verified" if record.stamp is None else "has changed since it was verified"
    return f"{folder}: the record of {record.victim} {state}: run transferbench verify on the run's folder"


def check(folder: Path) -> list[str]:
    """The faults of a folder: records without a fresh stamp, files that differ from what its records give."""
    records = read_all(folder)
    complaints = [stamp_complaint(folder, record) for record in records if not stamped(record)]
    try:
        contents = render(records, read_externals(folder, records), notes.read(folder))
    except InputError as error:
        return [*complaints, str(error)]
    for name, content in contents.items():
        path = folder / name
        if not path.is_file():
            complaints.append(f"{path}: missing; transferbench leaderboard --rebuild {folder} makes it")
        elif path.read_bytes() != content.encode():
            complaints.append(f"{path}: differs from its records; transferbench leaderboard --rebuild {folder}")
    return [*complaints, *downloads.check_parquet(folder, leaderboard_rows(records))]


def write_cards(folder: Path, records: Sequence[Record], card_of: dict[str, ModelCard]) -> None:
    """Write one published card per record: its own card by the record's id, with the measured row below."""
    folder.mkdir(exist_ok=True)
    rows = {str(row["victim"]): row for row in leaderboard_rows(records)}
    for record in records:
        row = rows.get(record.victim)
        card = card_of[record.victim]
        if row is not None:
            card = card.model_copy(update={"results": _model_index(record, row)})
        text = cards.write(card, "" if row is None else _results(row))
        atomic_files.write_text(folder / f"{file_stem(record.victim)}.md", text)


def _model_index(record: Record, row: Row) -> tuple[CardResult, ...]:
    """The cells that have a metric, each with its norm's radius in its name."""
    results = []
    measurements = Measurements(record)
    for column in LEADERBOARD:
        rate = column.rate(measurements) if isinstance(column, RateColumn) else None
        if column.metric is None or rate is None or row[column.name] == "":
            continue
        chain = None if column.norm is None else record.chain(column.norm)
        name = column.heading if chain is None else f"{column.heading} {chain.eps} at {record.images}"
        results.append(
            CardResult(
                metric=column.metric,
                name=name,
                value=float(row[column.name]),
                dataset=record.target_dataset,
                n=rate.n,
            )
        )
    return tuple(results)


def _results(row: Row) -> str:
    columns = [column for column in LEADERBOARD if column is not VICTIM and row[column.name] != ""]
    lines = [[column.name, markdown_cell(row[column.name])] for column in columns]
    return f"## Results ({markdown_cell(row['suite'])})\n\n" + table(["measure", "value"], lines, 1)


def published(root: Path) -> list[Path]:
    """The folders of committed leaderboards below `root`. InputError when there is none."""
    folders = sorted(path.parent for path in root.glob("*/records") if path.is_dir())
    if not folders:
        raise InputError(f"{root.resolve()}: no leaderboard with records here; publish a run first, or name a folder")
    return folders
