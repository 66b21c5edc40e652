"""Rows over seeds: what stands together in one line of a table or one mark of a figure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import mean

from transferbench.leaderboard.rows import Row


def pooled(rows: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """(method, source without its seed, rows over seeds), best mean union first."""

    def origin(row: Row) -> tuple[str, str]:
        return str(row["method"]), str(row["source"]).removesuffix(f"-s{row['seed']}")

    groups = [(*key, list(group)) for key, group in groupby(sorted(rows, key=origin), key=origin)]
    return sorted(groups, key=lambda group: -(average(group[2], "union_acc") or -1.0))


def values(rows: Sequence[Row], column: str) -> list[float]:
    """The column's numbers, of the rows that have one."""
    return [float(row[column]) for row in rows if row[column] != ""]


def average(rows: Sequence[Row], column: str) -> float | None:
    """Their mean; None where there is none."""
    found = values(rows, column)
    return mean(found) if found else None
