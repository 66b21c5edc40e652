"""The table for other programs: leaderboard.json, and leaderboard.parquet where pyarrow is installed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferbench.base import atomic_files
from transferbench.leaderboard.column import Column, Row, present
from transferbench.leaderboard.columns import LEADERBOARD
from transferbench.leaderboard.escape import plain
from transferbench.leaderboard.pooled_rows import METHODS

if TYPE_CHECKING:
    import pandas as pd

PARQUET = "leaderboard.parquet"


def json_text(over_seeds: Sequence[Row], rows: Sequence[Row]) -> str:
    """leaderboard.json: what the columns mean, the rows over seeds (`methods`) and every victim's; numbers are numbers,
    and what was not measured is left out."""
    columns: list[Column[Any]] = [*METHODS, *LEADERBOARD]
    values = {
        "methods": [_values(METHODS, row) for row in over_seeds],
        "victims": [_values(LEADERBOARD, row) for row in rows],
    }
    used = {name for lines in values.values() for row in lines for name in row}
    content = {"columns": {one.name: one.meaning for one in columns if one.name in used}, **values}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _values(columns: Sequence[Column[Any]], row: Row) -> dict[str, str | int | float]:
    """The cells that hold something. Of columns that are not text those become numbers that are (`3-4` is none)."""
    values: dict[str, str | int | float] = {}
    for column in columns:
        cell = row[column.name]
        if isinstance(cell, str) and not column.text:
            with suppress(ValueError):
                cell = float(cell)
        if cell != "":
            values[column.name] = plain(cell) if isinstance(cell, str) else cell
    return values


def write_parquet(folder: Path, rows: Sequence[Row]) -> None:
    """Write every victim's row as leaderboard.parquet where pyarrow is installed (the extra `parquet`). Without it a
    file that is there already, and may be of other records, is deleted."""
    if importlib.util.find_spec("pyarrow") is None:
        (folder / PARQUET).unlink(missing_ok=True)
        return
    atomic_files.write(folder / PARQUET, lambda path: _frame(rows).to_parquet(path, engine="pyarrow", index=False))


def check_parquet(folder: Path, rows: Sequence[Row]) -> list[str]:
    """The fault of a folder's leaderboard.parquet: other rows than these, whatever version of pyarrow wrote it."""
    import pandas as pd

    path = folder / PARQUET
    if not path.is_file():
        return []
    if importlib.util.find_spec("pyarrow") is None:
        return [f"{path}: cannot be read without pyarrow: pip install 'transferbench[parquet]'"]
    try:
        same = pd.read_parquet(path, engine="pyarrow").equals(_frame(rows))
    except (OSError, ValueError):
        # Of pyarrow's errors all derive from one of them.
        same = False
    return [] if same else [f"{path}: differs from its records; transferbench leaderboard --rebuild {folder}"]


def _frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows and columns of leaderboard.csv with types: text, and numbers with gaps."""
    import pandas as pd

    columns = present(LEADERBOARD, rows)
    values = [_values(columns, row) for row in rows]
    series = {}
    for column in columns:
        cells = [row.get(column.name) for row in values]
        series[column.name] = pd.Series(cells, dtype="string" if column.text else "Float64")
    return pd.DataFrame(series)
