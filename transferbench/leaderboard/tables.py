"""Tables as Markdown and as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from transferbench.leaderboard.column import Column, Row
from transferbench.leaderboard.escape import csv_cell


def table(header: Sequence[str], lines: Iterable[Sequence[str]], numbers_from: int = 0) -> str:
    """A Markdown table; columns from `numbers_from` on are aligned to the right."""
    rule = ["---" if place < numbers_from else "---:" for place in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [list(header), rule, *map(list, lines)])


def csv_table(columns: Sequence[Column[Any]], rows: Sequence[Row]) -> str:
    """The content of a CSV file."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=[column.name for column in columns], dtype=object)
    text: str = frame.map(csv_cell).to_csv(index=False, lineterminator="\n")
    return text
