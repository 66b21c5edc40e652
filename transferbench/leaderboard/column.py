"""A column of a table: every output (CSV, Markdown, page, cards) derives from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Generic, Literal, TypeVar

from transferbench.base.specifications import Norm

Cell = str | int | float
Row = dict[str, Cell]
Context = TypeVar("Context")


class Group(Enum):
    """Columns that the page shows and hides together, in the page's order: label, and whether it is visible at
    first."""

    VICTIM = "victim", True
    ROBUST = "robustness", True
    CORRUPTIONS = "corruptions", True
    CRAFTED = "attacks with the source alone", True
    FILES = "fooling points as image files", False
    SOURCE = "source on its own task", False
    CHANGE = "change from the source", False
    EXPECTED = "expected robustness", False
    COST = "cost", False
    MORE = "settings and flags", False

    def __init__(self, label: str, visible: bool) -> None:
        self.label = label
        self.visible = visible

    @property
    def key(self) -> str:
        """The group in the page's attributes and classes."""
        return self.name.lower()


@dataclass(frozen=True)
class Column(Generic[Context]):
    """A column: name, definition, how a row's cell is computed, and where and how it is presented."""

    name: str
    """In CSV files and rows."""
    meaning: str
    """The definition in leaderboard.md and the tooltip on the page."""
    value: Callable[[Context], Cell]
    """The cell from the row's context; "" where nothing was measured."""
    heading: str = ""
    """Short heading, on the page."""
    group: Group | None = None
    """Group on the page; None: not on the page."""
    interval: tuple[str, str] | None = None
    """Names of the columns that hold the ends of its 95 % interval."""
    norm: Norm | None = None
    """The norm it is about; the page hides it while another norm is selected."""
    text: bool = False
    """Aligned and sorted as text on the page."""
    summary: str = ""
    """Heading in the tables of leaderboard.md and in LaTeX; empty: not in them."""
    summary_order: int = 0
    """Sorts the summary's columns before the order of the list."""
    readme: bool = False
    """Part of the README's excerpt of the summary."""
    terminal: str = ""
    """Heading in the terminal's table, which is 80 characters wide; empty: not in it."""
    metric: Literal["accuracy", "robust_accuracy"] | None = None
    """Metric in a card's `model-index`; None: not in it."""
    filter: str = ""
    """Label of its filter on the page; empty: no filter."""
    setting: bool = False
    """Moves to the page's subtitle and last group where every row has the same value."""
    link: Callable[[Path, str], str] | None = None
    """Target of the cell's link on the page, from the board's folder and the value."""
    optional: bool = False
    """Left out of tables in which no row has a value."""
    page_order: int = 0
    """Sorts the columns of a group on the page before the order of the list."""


def present(columns: Iterable[Column[Context]], rows: Sequence[Row]) -> list[Column[Context]]:
    """The columns without the optional ones that no row fills."""
    return [column for column in columns if not column.optional or any(row[column.name] != "" for row in rows)]


def build_row(columns: Sequence[Column[Context]], context: Context) -> Row:
    """The cells of all columns by name."""
    return {column.name: column.value(context) for column in columns}
