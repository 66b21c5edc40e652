"""A leaderboard's folder: records in, leaderboard.csv, cost.csv, leaderboard.md and cards out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.specifications import NORMS
from transferbench.leaderboard import markdown, transfer
from transferbench.leaderboard.columns import COST, LEADERBOARD, TRANSFER
from transferbench.leaderboard.escape import csv_cell, markdown_cell
from transferbench.leaderboard.rows import Row, cost_rows, leaderboard_rows
from transferbench.leaderboard.tables import table
from transferbench.models import cards
from transferbench.models.cards import CardResult, ModelCard
from transferbench.results.records import Record, read_all, stamped


def _csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(columns), dtype=object)
    text: str = frame.map(csv_cell).to_csv(index=False, lineterminator="\n")
    return text


def render(records: Sequence[Record]) -> dict[str, str]:
    """File name -> content, a pure function of the records: building twice gives the same bytes."""
    rows = leaderboard_rows(records)
    return {
        "leaderboard.csv": _csv(rows, list(LEADERBOARD)),
        "cost.csv": _csv(cost_rows(records), list(COST)),
        "transfer.csv": _csv(transfer.rows(records), list(TRANSFER)),
        "leaderboard.md": markdown.render(records, rows),
    }


def write(folder: Path, records: Sequence[Record]) -> None:
    """Write the tables, each beside and renamed."""
    for name, content in render(records).items():
        atomic_files.write_text(folder / name, content)


def rebuild(folder: Path) -> list[Record]:
    """Write the tables of a folder from its records; returns them. InputError when it has none."""
    records = read_all(folder)
    write(folder, records)
    return records


def unstamped(folder: Path, record: Record) -> str:
    """What to do about a record that nobody has verified, or that changed since."""
    state = "was never verified" if record.stamp is None else "has changed since it was verified"
    return f"{folder}: the record of {record.victim} {state}: run transferbench verify on the run's folder"


def check(folder: Path) -> list[str]:
    """What is wrong with a folder: records without a fresh stamp, files that differ from what its records give."""
    records = read_all(folder)
    complaints = [unstamped(folder, record) for record in records if not stamped(record)]
    for name, content in render(records).items():
        path = folder / name
        if not path.is_file():
            complaints.append(f"{path}: missing; transferbench leaderboard --rebuild {folder} makes it")
        elif path.read_bytes() != content.encode():
            complaints.append(f"{path}: differs from its records; transferbench leaderboard --rebuild {folder}")
    return complaints


def write_cards(folder: Path, records: Sequence[Record], known: dict[str, ModelCard]) -> None:
    """One published card per victim: its own card with the measured row below."""
    folder.mkdir(exist_ok=True)
    rows = {str(row["victim"]): row for row in leaderboard_rows(records)}
    for record in records:
        row = rows.get(record.victim)
        card = known[record.victim]
        if row is not None:
            card = card.model_copy(update={"results": _measured(row)})
        text = cards.write(card, "" if row is None else _results(row))
        atomic_files.write_text(folder / f"{file_stem(record.victim)}.md", text)


def _measured(row: Row) -> tuple[CardResult, ...]:
    """Clean, each norm and the union of a row, where they were measured."""
    data, n = str(row["target_dataset"]), int(row["n"])
    robust = {f"{norm} {row[f'{norm.lower()}_eps']}": row[f"{norm.lower()}_acc"] for norm in NORMS}
    robust["union"] = row["union_acc"]
    found = [CardResult(metric="accuracy", name="clean", value=float(row["clean_acc"]), dataset=data, n=n)]
    for name, value in robust.items():
        if value != "":
            found.append(CardResult(metric="robust_accuracy", name=name, value=float(value), dataset=data, n=n))
    return tuple(found)


def _results(row: Row) -> str:
    shown = [[name, markdown_cell(row[name])] for name in LEADERBOARD if row[name] != "" and name != "victim"]
    return f"## Results ({markdown_cell(row['suite'])})\n\n" + table(["measure", "value"], shown, 1)


def published(root: Path) -> list[Path]:
    """The folders of committed leaderboards below `root`. InputError when there is none."""
    folders = sorted(path.parent for path in root.glob("*/records") if path.is_dir())
    if not folders:
        raise InputError(f"{root.resolve()}: no leaderboard with records here; publish a run first, or name a folder")
    return folders
