"""leaderboard.md: mean and range over seeds per (method, source), then every victim with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean

from transferbench.base.specifications import NORMS
from transferbench.leaderboard import figures, transfer
from transferbench.leaderboard.columns import LEADERBOARD
from transferbench.leaderboard.escape import markdown_cell
from transferbench.leaderboard.pooling import pooled, values
from transferbench.leaderboard.rows import Row
from transferbench.leaderboard.statistics import wilson
from transferbench.leaderboard.tables import table
from transferbench.results.records import Record

RATES: dict[str, str] = {
    "clean_acc": "clean",
    "linf_acc": "Linf",
    "l2_acc": "L2",
    "l1_acc": "L1",
    "union_acc": "union",
    "pgd20_linf_acc": "PGD-20",
    "source_linf_acc": "source Linf",
    "source_union_acc": "source union",
    "source_pgd_asr": "source-PGD ASR",
    "pretrained_asr": "pre-trained ASR",
    "noise_asr": "noise ASR",
    "linf_expected": "expected Linf",
}
INTERVALS = {"union_acc": ("union_low", "union_high")} | {
    rate: (f"{rate}_low", f"{rate}_high")
    for rate in ("clean_acc", "linf_acc", "l2_acc", "l1_acc", "pgd20_linf_acc", "pretrained_asr", "noise_asr")
}


README = ("clean_acc", "linf_acc", "l2_acc", "l1_acc", "union_acc", "pretrained_asr", "noise_asr")
"""The rates of the README's excerpt, which a test compares with the committed records."""


def mean_and_range(rows: Sequence[Row], column: str) -> str:
    """`49.83 (46.50-53.00)`; a single value alone; empty where nothing was measured."""
    found = values(rows, column)
    if not found:
        return ""
    if len(found) == 1:
        return f"{found[0]:.2f}"
    return f"{mean(found):.2f} ({min(found):.2f}-{max(found):.2f})"


def rank_range(rows: Sequence[Row]) -> str:
    """`1` or `3-4`: the ranks over seeds; empty where no row has one."""
    held = sorted({int(row["rank"]) for row in rows if row["rank"] != ""})
    return "" if not held else str(held[0]) if len(held) == 1 else f"{held[0]}-{held[-1]}"


def summary(rows: Sequence[Row], columns: Sequence[str] = tuple(RATES)) -> str:
    """The table over seeds: one line per (method, source), of the named rates."""
    lines = []
    for method, source, group in pooled(rows):
        names = [markdown_cell(method), markdown_cell(source)]
        lines.append([*names, rank_range(group), *(mean_and_range(group, column) for column in columns)])
    return table(["method", "source", "rank", *(RATES[column] for column in columns)], lines, 2)


def render(records: Sequence[Record], rows: Sequence[Row]) -> str:
    """The whole page."""
    if not rows:
        return "# Leaderboard\n\nNo victim has a record yet.\n"
    # Of all victims: one folder may hold models of several protocols and radii (eval's does).
    shown = [record for record in records if record.role == "victim"]
    seeds = sorted({record.seed for record in shown})
    used = {(NORMS.index(chain.norm), chain.eps) for one in shown for chain in one.chains if chain.name == chain.norm}
    radii = ", ".join(f"{NORMS[place]} {eps}" for place, eps in sorted(used))
    fewest = min(record.n for record in shown)
    middle = 100 * (wilson(fewest // 2, fewest)[1] - 0.5)
    victims = [_victim_line(row) for row in rows]
    return (
        "\n\n".join(
            [
                f"# {_all_of(record.suite for record in shown)}",
                f"Protocol: {_all_of(record.protocol for record in shown)}. "
                f"Radii in [0,1] pixels: {markdown_cell(radii)}. "
                f"n = {_all_of(str(record.n) for record in shown)} attacked examples per victim (at 50 % the 95 % "
                f"interval is about +-{middle:.1f}). Seeds: {', '.join(map(str, seeds))}; cells are the mean over "
                "seeds, in brackets the range. All in %.",
                summary(rows),
                "## Every victim",
                "In brackets 95 % Wilson intervals. Ranks are formed within a seed: rows that no other "
                "row beats (exact McNemar test on the union's verdicts, Holm-corrected, .05) share rank 1.",
                table(["victim", "rank", *list(RATES.values()), "n", "flags"], victims, 1),
                *filter(None, [transfer.markdown(records), figures.markdown(rows)]),
                "## Columns",
                "\n".join(f"- `{name}`: {meaning}" for name, meaning in LEADERBOARD.items()),
            ]
        )
        + "\n"
    )


def _all_of(names: Iterable[str]) -> str:
    return markdown_cell(" / ".join(sorted(set(names))))


def _victim_line(row: Row) -> list[str]:
    cells = [markdown_cell(row["victim"]), str(row["rank"])]
    for column in RATES:
        text = str(row[column])
        if column in INTERVALS and text:
            low, high = INTERVALS[column]
            text += f" [{row[low]}, {row[high]}]"
        cells.append(text)
    return [*cells, str(row["n"]), markdown_cell(row["flags"])]
