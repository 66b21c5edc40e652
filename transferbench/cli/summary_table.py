"""The summary of a board on the terminal: means over seeds, in as many tables as the terminal's width asks for."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from transferbench.leaderboard.columns import LEADERBOARD
from transferbench.leaderboard.families import BoardColumn
from transferbench.leaderboard.markdown import mean_and_range
from transferbench.leaderboard.pooling import PooledRows, pooled
from transferbench.leaderboard.rows import leaderboard_rows
from transferbench.results.records import Record

_WIDEST = 10_000
"""Where the output is no terminal, lines have the length that they need."""


def print_summary(console: Console, records: Sequence[Record]) -> None:
    """Print the means over seeds, one line per (method, source). No number is cut off, however narrow the terminal."""
    rows = leaderboard_rows(records)
    first = next((record for record in records if record.role == "victim"), None)
    if first is None:
        print_line(console, "no victim has a record here")
        return
    pools = list(pooled(rows))
    width = console.width if console.is_terminal else _WIDEST
    print_line(console, f"{first.suite} ({first.protocol})")
    for columns in _parts(console, pools, width):
        _print_whole(console, _table(pools, columns), _natural_width(console, pools, columns))
    print_line(
        console,
        f"%, n = {first.n_text} attacked examples per victim, images of {first.images}, mean of "
        f"{len({row['seed'] for row in rows})} seed(s). ASR: share of the clean-correct examples that an attacker who "
        "holds only the source fools (any of k points); noise: the same for k draws of random signs.",
    )


def print_line(console: Console, text: str) -> None:
    """Text that the terminal wraps."""
    console.print(text, soft_wrap=not console.is_terminal)


def _print_whole(console: Console, table: Table, width: int) -> None:
    """Print a table that may be wider than the terminal; the console otherwise cuts off what it thinks is outside."""
    own = console.width
    console.width = width
    try:
        console.print(table)
    finally:
        console.width = own


def _parts(console: Console, pools: Sequence[PooledRows], width: int) -> list[list[BoardColumn]]:
    """The columns in as few tables as fit; a table has at least one."""
    parts: list[list[BoardColumn]] = [[]]
    for column in (column for column in LEADERBOARD if column.terminal):
        if parts[-1] and _natural_width(console, pools, [*parts[-1], column]) > width:
            parts.append([])
        parts[-1].append(column)
    return parts


def _natural_width(console: Console, pools: Sequence[PooledRows], columns: Sequence[BoardColumn]) -> int:
    options = console.options.update(width=_WIDEST)
    return Measurement.get(console, options, _table(pools, columns)).maximum


def _table(pools: Sequence[PooledRows], columns: Sequence[BoardColumn]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    table.add_column("source", no_wrap=True)
    for column in columns:
        table.add_column(column.terminal, justify="right", no_wrap=True)
    for pool in pools:
        means = (mean_and_range(pool.rows, column).partition(" ")[0] for column in columns)
        table.add_row(pool.label, pool.source, *means)
    return table
