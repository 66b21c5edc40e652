"""read_results(): what a run or a board holds, as pandas frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferbench.base.errors import InputError
from transferbench.leaderboard.column import Column, Row, present
from transferbench.leaderboard.columns import COST, LEADERBOARD
from transferbench.leaderboard.rows import cost_rows, leaderboard_rows
from transferbench.results.records import Record, read_all
from transferbench.store.reader import STORE, Reader
from transferbench.workflows.run_status import COLUMNS, verdict_rows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RunResults:
    """The results in a folder; each is read when it is first asked for. InputError where it is damaged or not there:
    a board of `leaderboards/` has no verdicts, a folder of `evaluate(store=)` no rows."""

    folder: Path

    @cached_property
    def records(self) -> list[Record]:
        """All measurements by victim, with a bit per example."""
        return read_all(self.folder)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """leaderboard.csv: a row per victim, numbers as numbers (rates in %), NaN where nothing was measured."""
        rows = leaderboard_rows(self.records)
        return _frame(present(LEADERBOARD, rows), rows)

    @cached_property
    def costs(self) -> pd.DataFrame:
        """cost.csv: seconds, passes and hardware by network, sources included."""
        return _frame(COST, cost_rows(self.records))

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """A row per example, chain and victim of the run's last plan: run (the victim), chain, norm, eps, seed, example
        (its id), fooled, attack (`clean` where it was wrong before any, empty for a survivor), try, pred, distance,
        tie, dataset."""
        import pandas as pd

        return pd.DataFrame(list(verdict_rows(Reader(self.folder))), columns=list(COLUMNS))


def read_results(folder: str | Path) -> RunResults:
    """The results of a run's folder (of `run`, `transferbench run` or `eval`), also while it runs, or of a board.

    Raises InputError where the folder holds neither records nor a store.
    """
    folder = Path(folder)
    if not (folder / STORE).is_file() and not any((folder / "records").glob("*.json")):
        raise InputError(f"{folder}: neither records nor the store of a run are here")
    return RunResults(folder)


def _frame(columns: Sequence[Column[Any]], rows: Sequence[Row]) -> pd.DataFrame:
    """The rows with a column of numbers wherever every cell is one."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=[column.name for column in columns])
    for column in columns:
        if column.text:
            continue
        cells = frame[column.name]
        numbers = pd.to_numeric(cells.where(cells != ""), errors="coerce")
        if numbers.notna().sum() == (cells != "").sum():
            frame[column.name] = numbers
    return frame
