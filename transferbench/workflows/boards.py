"""What `leaderboard` does with a board's folder: rebuild, check, write its page, export, compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transferbench.leaderboard import build, exports, figures, page, published
from transferbench.results.records import Record, read_all
from transferbench.workflows import exported_points


def records(folder: Path) -> list[Record]:
    """The board's records. InputError where there are none."""
    return read_all(folder)


def rebuild(folder: Path) -> None:
    """Write tables and figures anew from the records."""
    figures.write(folder, build.rebuild(folder))


def write_page(folder: Path) -> Path:
    """Write the page; returns its index.html."""
    return page.write(folder, read_all(folder))


def check(folder: Path) -> list[str]:
    """What differs from the records, one line each."""
    return [*build.check(folder), *page.check(folder, read_all(folder))]


def export(folder: Path, kinds: Sequence[str], data_dir: Path | None = None) -> list[Path]:
    """Write exports/; returns the files."""
    found = read_all(folder)
    points = exported_points.write(folder, found, data_dir) if exports.POINTS in kinds else []
    return [*exports.write(folder, found, kinds), *points]


def compare_published(folder: Path, numbers: Path | None, checkout: Path | None) -> list[Path]:
    """Write published.csv and published.md; returns them."""
    return published.write(folder, read_all(folder), numbers, checkout)
