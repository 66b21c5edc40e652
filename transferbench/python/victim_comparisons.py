"""compare(): victims pair by pair on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transferbench.leaderboard import comparison
from transferbench.leaderboard.comparison import VictimComparison
from transferbench.results.records import Record
from transferbench.workflows import compared_verdicts

if TYPE_CHECKING:
    import pandas as pd


def compare(
    *inputs: str | Path | Record | pd.DataFrame,
    within: str | Path | None = None,
    columns: Sequence[str] | None = None,
    seed: int | None = None,
) -> VictimComparison:
    """Compare two or more victims on the same examples, all pairs: differences with 95 % intervals, exact McNemar
    tests, Holm-corrected p.

    `inputs`: folders of runs or boards (all of their victims), records, CSV files of verdicts, `PATH:VICTIM` for one
    victim of either; `within` a folder or file, names of victims there (`lwf-robust` over all of its seeds,
    `lwf-robust-s0` in one); also `Record`s and frames as `read_results(folder).verdicts`. `columns`: clean, the norms
    and the union by default; any chain or source-only attack of the records. `seed`: that one alone.

    `print` shows it, `to_frame()` has a row per pair, column and seed. InputError for verdicts on other examples, and
    for what cannot be read.
    """
    victims = compared_verdicts.load(inputs, None if within is None else Path(within))
    return comparison.compare(victims, columns, seed)
