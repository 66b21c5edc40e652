"""leaderboard.md: mean and range over seeds per (method, source), then every victim with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean

from transferbench.base.specifications import NORMS
from transferbench.leaderboard import figures, image_files, queries, source_only, transfer
from transferbench.leaderboard.column import Row, present
from transferbench.leaderboard.columns import LEADERBOARD
from transferbench.leaderboard.escape import markdown_cell
from transferbench.leaderboard.families import BoardColumn
from transferbench.leaderboard.pooling import pooled, values
from transferbench.leaderboard.statistics import wilson
from transferbench.leaderboard.tables import table
from transferbench.results.records import Record


def summary_columns(rows: Sequence[Row]) -> list[BoardColumn]:
    """The columns of the tables of leaderboard.md, in their order."""
    columns = (column for column in present(LEADERBOARD, rows) if column.summary)
    return sorted(columns, key=lambda column: column.summary_order)


def mean_and_range(rows: Sequence[Row], column: BoardColumn) -> str:
    """`49.83 (46.50-53.00)`; a single value alone; the different texts of a column of text; empty where nothing was
    measured."""
    if column.text:
        return ", ".join(sorted({str(row[column.name]) for row in rows} - {""}))
    numbers = values(rows, column.name)
    if not numbers:
        return ""
    if len(numbers) == 1:
        return f"{numbers[0]:.2f}"
    return f"{mean(numbers):.2f} ({min(numbers):.2f}-{max(numbers):.2f})"


def rank_range(rows: Sequence[Row]) -> str:
    """`1` or `3-4`: the ranks over seeds; empty where no row has one."""
    ranks = sorted({int(row["rank"]) for row in rows if row["rank"] != ""})
    return "" if not ranks else str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"


def summary(rows: Sequence[Row]) -> str:
    """The table over seeds: one line per (method, source)."""
    return _over_seeds(rows, summary_columns(rows))


def readme_excerpt(rows: Sequence[Row]) -> str:
    """The part of the summary that README.md shows."""
    return _over_seeds(rows, [column for column in summary_columns(rows) if column.readme])


def _over_seeds(rows: Sequence[Row], columns: Sequence[BoardColumn]) -> str:
    lines = []
    for method, source, group in pooled(rows):
        names = [markdown_cell(method), markdown_cell(source)]
        lines.append([*names, rank_range(group), *(mean_and_range(group, column) for column in columns)])
    return table(["method", "source", "rank", *(column.summary for column in columns)], lines, 2)


def render(records: Sequence[Record], rows: Sequence[Row]) -> str:
    """The whole page."""
    if not rows:
        return "# Leaderboard\n\nNo victim has a record yet.\n"
    # Of all victims: one folder may hold models of several protocols and radii (eval's does).
    victims = [record for record in records if record.role == "victim"]
    seeds = sorted({record.seed for record in victims})
    chains = [chain for victim in victims for chain in victim.chains if chain.name == chain.norm]
    radii = sorted({(NORMS.index(chain.norm), chain.eps) for chain in chains})
    fewest = min(victim.n for victim in victims)
    half_width = 100 * (wilson(fewest // 2, fewest)[1] - 0.5)
    columns = summary_columns(rows)
    norms = [f"{NORMS[place]} {eps}" for place, eps in radii]
    return (
        "\n\n".join(
            [
                f"# {_all_of(record.suite for record in victims)}",
                f"Protocol: {_all_of(record.protocol for record in victims)}. "
                + (
                    f"Radii in [0,1] pixels: {markdown_cell(', '.join(norms))}, on images of "
                    if norms
                    else "Images of "
                )
                + f"{_all_of(record.images for record in victims)}. "
                f"n = {_all_of(str(record.n) for record in victims)} attacked examples per victim (at 50 % the 95 % "
                f"interval is about +-{half_width:.1f}). Seeds: {', '.join(map(str, seeds))}; cells are the mean over "
                "seeds, in brackets the range. All in %.",
                summary(rows),
                "## Every victim",
                "In brackets 95 % Wilson intervals. Ranks are formed within a seed: rows that no other "
                "row beats (exact McNemar test on the union's verdicts, Holm-corrected, .05) share rank 1.",
                table(
                    ["victim", "rank", *(column.summary for column in columns), "n", "flags"],
                    [_victim_line(row, columns) for row in rows],
                    1,
                ),
                *_sections(records, rows),
                "## Columns",
                "\n".join(f"- `{column.name}`: {column.meaning}" for column in present(LEADERBOARD, rows)),
            ]
        )
        + "\n"
    )


def _sections(records: Sequence[Record], rows: Sequence[Row]) -> list[str]:
    """The parts of the page that not every board has."""
    parts = [module.markdown(records) for module in (source_only, queries, image_files, transfer)]
    return [part for part in (*parts, figures.markdown(rows)) if part]


def _all_of(names: Iterable[str]) -> str:
    return markdown_cell(" / ".join(sorted(set(names))))


def _victim_line(row: Row, columns: Sequence[BoardColumn]) -> list[str]:
    cells = [markdown_cell(row["victim"]), str(row["rank"])]
    for column in columns:
        text = str(row[column.name])
        if column.interval and text:
            low, high = column.interval
            text += f" [{row[low]}, {row[high]}]"
        cells.append(text)
    return [*cells, str(row["n"]), markdown_cell(row["flags"])]
