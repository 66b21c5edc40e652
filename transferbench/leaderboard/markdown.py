"""leaderboard.md: mean and range over seeds per (method, source), then every victim with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean

from transferbench.base.specifications import NORMS
from transferbench.leaderboard import extensions, external, figures, image_files, notes, queries, source_only, transfer
from transferbench.leaderboard.column import Row, present
from transferbench.leaderboard.columns import LEADERBOARD
from transferbench.leaderboard.escape import markdown_cell
from transferbench.leaderboard.families import BoardColumn
from transferbench.leaderboard.pooled_rows import PooledRow, pooled_rows
from transferbench.leaderboard.pooling import pooled, rank_range, values
from transferbench.leaderboard.statistics import wilson
from transferbench.leaderboard.tables import table
from transferbench.results.external import ExternalEvaluation
from transferbench.results.records import UNTRAINED, Record

GROUPS = (
    "Groups: rows of one target that share a letter are not told apart in union accuracy over their seeds (exact "
    "conditional test with the image as the unit, Holm-corrected over all pairs, at .05)."
)


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


def summary(found: Sequence[PooledRow], rows: Sequence[Row]) -> str:
    """The table over seeds: one line per (method, source), with the letters of the groups."""
    return _over_seeds([(one.label, one.source, one.letters, one.rows) for one in found], summary_columns(rows), True)


def readme_excerpt(rows: Sequence[Row]) -> str:
    """The part of the summary that README.md shows."""
    lines = [(method, source, "", group) for method, source, group in pooled(rows)]
    return _over_seeds(lines, [column for column in summary_columns(rows) if column.readme], False)


def _over_seeds(
    found: Sequence[tuple[str, str, str, Sequence[Row]]], columns: Sequence[BoardColumn], groups: bool
) -> str:
    lines = []
    for method, source, letters, rows in found:
        names = [markdown_cell(method), markdown_cell(source), rank_range(rows), *([letters] if groups else [])]
        lines.append([*names, *(mean_and_range(rows, column) for column in columns)])
    header = ["method", "source", "rank", *(["groups"] if groups else [])]
    return table([*header, *(column.summary for column in columns)], lines, 2)


def _gains(found: Sequence[PooledRow]) -> str:
    """The differences to plain fine-tuning, in points; empty where there is none."""
    lines = []
    for one in found:
        if one.gain is not None:
            ends = f"[{100 * one.gain.low:+.2f}, {100 * one.gain.high:+.2f}]"
            p = f"{one.gain.p:.2g}"
            names = [markdown_cell(one.label), markdown_cell(one.source), markdown_cell(one.baseline)]
            lines.append([*names, f"{100 * one.gain.difference + 0.0:+.2f}", ends, p])
    if not lines:
        return ""
    header = ["method", "source", "compared with", "difference", "95 % interval", "p"]
    return (
        "## Against plain fine-tuning\n\nUnion accuracy less that of plain fine-tuning of the same source on the same "
        "images, in points over the seeds that both have; interval and exact test have the image as their unit. The p "
        "are not corrected for their number; groups in the table above are.\n\n" + table(header, lines, 3)
    )


def render(
    records: Sequence[Record], rows: Sequence[Row], externals: Sequence[ExternalEvaluation] = (), text: str = ""
) -> str:
    """The whole page; `text` is the board's notes."""
    if not rows:
        smoke = any(UNTRAINED in record.flags for record in records)
        none = "A smoke run's victims are in no table." if smoke else "No victim has a record yet."
        return f"# Leaderboard\n\n{none}\n"
    # Of all victims: one folder may hold models of several protocols and radii (eval's does).
    victims = [record for record in records if record.role == "victim"]
    seeds = sorted({record.seed for record in victims})
    chains = [chain for victim in victims for chain in victim.chains if chain.name == chain.norm]
    radii = sorted({(NORMS.index(chain.norm), chain.eps) for chain in chains})
    fewest = min(victim.n_chains for victim in victims)
    half_width = 100 * (wilson(fewest // 2, fewest)[1] - 0.5)
    columns, over_seeds = summary_columns(rows), pooled_rows(records, rows)
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
                f"n = {_all_of(record.n_text for record in victims)} attacked examples per victim (at 50 % the 95 % "
                f"interval is about +-{half_width:.1f}). Seeds: {', '.join(map(str, seeds))}; cells are the mean over "
                "seeds, in brackets the range. All in %.",
                summary(over_seeds, rows),
                GROUPS,
                *([said] if (said := notes.section(text)) else []),
                *([gains] if (gains := _gains(over_seeds)) else []),
                "## Every victim",
                "In brackets 95 % Wilson intervals. Ranks are formed within a seed: rows that no other "
                "row beats (exact McNemar test on the union's verdicts, Holm-corrected, .05) share rank 1.",
                table(
                    ["victim", "rank", *(column.summary for column in columns), "n", "flags"],
                    [_victim_line(row, columns) for row in rows],
                    1,
                ),
                *_sections(records, rows),
                *([judged] if (judged := external.markdown(records, externals)) else []),
                "## Columns",
                "\n".join(f"- `{column.name}`: {column.meaning}" for column in present(LEADERBOARD, rows)),
            ]
        )
        + "\n"
    )


def _sections(records: Sequence[Record], rows: Sequence[Row]) -> list[str]:
    """The parts of the page that not every board has."""
    modules = (extensions, source_only, queries, image_files, transfer)
    parts = [module.markdown(records) for module in modules]
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
