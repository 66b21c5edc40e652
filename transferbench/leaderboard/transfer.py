"""The transfer matrix: what every source's crafted sets do to every victim, beside noise counted in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

from transferbench.leaderboard.escape import markdown_cell
from transferbench.leaderboard.pooling import Line, labels
from transferbench.leaderboard.rows import Row, percent
from transferbench.leaderboard.statistics import wilson
from transferbench.leaderboard.tables import table
from transferbench.results.records import Record

CONTROL = "random-sign"


def rows(records: Sequence[Record]) -> list[Row]:
    """One row for every crafted set that was shown to a victim, by attack, victim and source."""
    found: list[Row] = []
    for record in records:
        correct = record.clean.count
        for made in record.crafted:
            if made.attack["id"] == CONTROL:
                continue
            flipped, tries = made.any_of(), len(made.flips)
            noise = record.control(made.norm)
            low, high = wilson(flipped, correct) if correct else (0.0, 1.0)
            found.append(
                {
                    "victim": record.victim,
                    "source": made.source,
                    "own": "yes" if made.source == record.source else "no",
                    "attack": made.attack["id"] + ("" if made.norm == "Linf" else f"@{made.norm}"),
                    "tries": tries,
                    "flipped": flipped,
                    "correct": correct,
                    "asr": percent(flipped, correct),
                    "asr_low": f"{100 * low:.2f}",
                    "asr_high": f"{100 * high:.2f}",
                    "noise_asr": "" if noise is None else percent(noise.any_of(tries), correct),
                }
            )
    return sorted(found, key=lambda row: (row["attack"], row["victim"], row["own"] != "yes", row["source"]))


class Crossed(NamedTuple):
    """Mean rates over seeds, % of the clean-correct: by the source that made the set, and of the noise."""

    method: str
    own: str
    rates: dict[str, float]
    noise: float | None


def matrices(records: Sequence[Record]) -> dict[str, list[Crossed]]:
    """By attack: a line for every (method, own source), sources without their seed."""
    by_victim = {record.victim: record for record in records if record.role == "victim"}
    pools = {
        name: Line.of(name, one.method, one.source, one.target_dataset, one.seed) for name, one in by_victim.items()
    }
    called = labels(pools.values())
    cells: dict[str, dict[tuple[str, str], dict[str, list[float]]]] = {}
    for row in rows(records):
        record = by_victim.get(str(row["victim"]))
        if record is None or row["asr"] == "":
            continue
        seed = f"-s{record.seed}"
        pool = pools[record.victim]
        key = pool.source, called[pool]
        line = cells.setdefault(str(row["attack"]), {}).setdefault(key, {})
        line.setdefault(str(row["source"]).removesuffix(seed), []).append(float(row["asr"]))
        if row["noise_asr"] != "":
            line.setdefault(CONTROL, []).append(float(row["noise_asr"]))
    found: dict[str, list[Crossed]] = {}
    for attack, lines in cells.items():
        for (own, method), rates in sorted(lines.items()):
            means = {source: mean(shares) for source, shares in rates.items()}
            noise = means.pop(CONTROL, None)
            found.setdefault(attack, []).append(Crossed(method, own, means, noise))
    return found


def markdown(records: Sequence[Record]) -> str:
    """The matrices as tables, own sources in bold; empty where nothing was crafted."""
    parts = []
    for attack, lines in matrices(records).items():
        sources = sorted({source for line in lines for source in line.rates})
        shown = []
        for line in lines:
            rates = {source: f"{rate:.2f}" for source, rate in line.rates.items()}
            if line.own in rates:
                rates[line.own] = f"**{rates[line.own]}**"
            cells = [rates.get(name, "") for name in sources]
            noise = "" if line.noise is None else f"{line.noise:.2f}"
            shown.append([markdown_cell(line.method), markdown_cell(line.own), *cells, noise])
        header = ["method", "own source", *(f"made with {markdown_cell(source)}" for source in sources), "noise"]
        parts.append(f"### `{markdown_cell(attack)}`\n\n{table(header, shown, 2)}")
    if not parts:
        return ""
    return (
        "## Transfer matrix\n\nShare of the clean-correct examples that a set made with one source alone flips (any of "
        "its tries), %, mean over seeds; bold: the source the victim was fine-tuned from; noise: as many draws of "
        "random signs. Every set with its interval: transfer.csv.\n\n" + "\n\n".join(parts)
    )
