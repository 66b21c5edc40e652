"""The page: index.html and a page per victim, a static folder that opens from disk without a network.

A function of the records, the cards and the strips that lie beside them: building twice gives the same bytes. Every
text is escaped by Jinja2, whatever a template's file is called; scripts and styles are files of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transferbench.base import atomic_files
from transferbench.base.names import file_stem
from transferbench.base.specifications import NORMS
from transferbench.leaderboard import figures, transfer, victim_page
from transferbench.leaderboard.columns import COST, LEADERBOARD
from transferbench.leaderboard.escape import plain
from transferbench.leaderboard.links import TEMPLATES, card_link, environment, page_of
from transferbench.leaderboard.rows import Row, cost_rows, leaderboard_rows
from transferbench.results.records import Record

_ASSETS = ("page.css", "page.js")
FILES = ("leaderboard.csv", "leaderboard.md", "cost.csv", "transfer.csv")


class Group(NamedTuple):
    """Columns that are shown and hidden together; `on` at first."""

    label: str
    on: bool
    columns: tuple[str, ...]


GROUPS: dict[str, Group] = {
    "victim": Group(
        "victim",
        True,
        ("rank", "victim", "method", "source", "network", "source_dataset", "target_dataset", "seed", "n"),
    ),
    "robust": Group("robustness", True, ("clean_acc", "linf_acc", "l2_acc", "l1_acc", "union_acc", "pgd20_linf_acc")),
    "crafted": Group(
        "attacks with the source alone",
        True,
        (
            *("pretrained_asr", "noise_asr", "source_pgd_asr", "source_pgd_noise_asr"),
            *("pretrained_seed_asr", "noise_seed_asr"),
        ),
    ),
    "source": Group(
        "source on its own task",
        False,
        ("source_clean_acc", "source_linf_acc", "source_l2_acc", "source_l1_acc", "source_union_acc"),
    ),
    "change": Group(
        "change from the source",
        False,
        ("change_clean", "change_linf", "change_l2", "change_l1", "change_union"),
    ),
    "expected": Group("expected robustness", False, ("linf_expected", "l2_expected", "l1_expected")),
    "cost": Group("cost", False, ("forwards", "backwards", "train_seconds", "seconds")),
    "more": Group(
        "settings and flags",
        False,
        (
            *("linf_eps", "l2_eps", "l1_eps", "pretrained_eps", "pretrained_neurons", "pretrained_seed_eps"),
            *("pretrained_asr_n", "noise_asr_n", "clean_acc_full", "n_full", "suite", "flags", "card"),
        ),
    ),
}
TEXT = {"victim", "method", "source", "network", "source_dataset", "target_dataset", "suite", "flags", "card"} | {
    "linf_eps",
    "l2_eps",
    "l1_eps",
    "pretrained_eps",
    "pretrained_seed_eps",
}
_FILTERS = {
    "method": "method",
    "source": "source",
    "network": "network",
    "source_dataset": "source data",
    "target_dataset": "target data",
}
_WORDS = {norm.lower(): norm for norm in NORMS} | {
    "asr": "ASR",
    "pgd": "PGD",
    "pgd20": "PGD-20",
    "pretrained": "pre-trained",
}
_MOVED = ("network", "source_dataset", "target_dataset", "n")
_NORM_OF = {norm.lower(): norm for norm in NORMS}


def write(folder: Path, records: Sequence[Record]) -> Path:
    """Write the page beside its records; pages of victims that are gone go. Returns index.html."""
    wanted = render(folder, records)
    (folder / "pages").mkdir(exist_ok=True)
    for name, content in wanted.items():
        atomic_files.write_text(folder / name, content)
    for stale in (folder / "pages").glob("*.html"):
        if f"pages/{stale.name}" not in wanted:
            stale.unlink()
    return folder / "index.html"


def check(folder: Path, records: Sequence[Record]) -> list[str]:
    """What of the page in a folder is not what its records give; nothing where there is no page."""
    if not (folder / "index.html").is_file():
        return []
    fix = f"transferbench leaderboard --html {folder}"
    return [
        f"{folder / name}: differs from its records; {fix}"
        for name, content in render(folder, records).items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != content.encode()
    ]


def render(folder: Path, records: Sequence[Record]) -> dict[str, str]:
    """File name -> content of the whole page. Cards and strips are looked for in the folder, cards also where
    published boards have theirs."""
    rows = leaderboard_rows(records)
    shown = {str(row["victim"]) for row in rows}
    pages = [record for record in records if record.victim in shown or record.role == "source"]
    found = {name: (TEMPLATES / name).read_text(encoding="utf-8") for name in _ASSETS}
    found["index.html"] = _index(folder, pages, rows)
    by_victim = {str(row["victim"]): row for row in rows}
    known = {record.victim for record in pages}
    for record in pages:
        name = f"pages/{file_stem(record.victim)}.html"
        found[name] = victim_page.render(folder, record, by_victim.get(record.victim), known)
    return found


def _index(folder: Path, records: Sequence[Record], rows: Sequence[Row]) -> str:
    costs = {str(row["victim"]): row for row in cost_rows(records)}
    wide: list[Row] = [{**costs[str(row["victim"])], **row} for row in rows]
    used = {column for row in wide for column, value in row.items() if value != ""}
    groups = _columns(wide, used)
    victims = [record for record in records if record.role == "victim"]
    said = [plain(text) for text in sorted({record.protocol for record in victims})]
    constant = [
        f"{name.replace('_', ' ')} {plain(wide[0][name])}"
        for name in _MOVED
        if wide and name in groups.get("more", []) and wide[0][name] != ""
    ]
    matrices = []
    for attack, found in transfer.matrices(records).items():
        sources = sorted({source for line in found for source in line.rates})
        matrices.append({"attack": attack, "sources": sources, "lines": [_heat(line, sources) for line in found]})
    options = [
        (column, label, sorted({plain(row[column]) for row in rows if row[column] != ""}))
        for column, label in _FILTERS.items()
    ]
    heads = [_head(column, group) for group, columns in groups.items() for column in columns]
    lines = [_line(row, groups, folder) for row in wide]
    text: str = (
        environment()
        .get_template("index.html")
        .render(
            up="",
            title=" / ".join(sorted({plain(record.suite) for record in victims})) or "No victim yet",
            subtitle="; ".join([*said, *constant]),
            groups=list(groups),
            shown=[(name, GROUPS[name].label, GROUPS[name].on) for name in groups],
            filters=[option for option in options if len(option[2]) > 1],
            norms=[norm for norm in NORMS if f"{norm.lower()}_acc" in used],
            heads=heads,
            rows=lines,
            widths=_widths(heads, lines),
            matrices=matrices,
            figures=[
                (name, said) for name, said in figures.TITLES.items() if (folder / f"figures/{name}.svg").is_file()
            ],
            sources=[(record.victim, page_of(record.victim)) for record in records if record.role == "source"],
            files=[name for name in FILES if (folder / name).is_file()],
        )
    )
    return text


def _columns(rows: Sequence[Row], used: set[str]) -> dict[str, list[str]]:
    """Group -> its columns that some row fills. What is the same in every row makes room, among the settings."""
    same = {name for name in _MOVED if len({row[name] for row in rows}) == 1}
    found = {
        name: [column for column in group.columns if column in (*used, "rank", "victim") and column not in same]
        for name, group in GROUPS.items()
    }
    found["more"] = [*(column for column in GROUPS["victim"].columns if column in same), *found["more"]]
    return {name: columns for name, columns in found.items() if columns}


def _classes(column: str, group: str) -> str:
    norm = _NORM_OF.get(next((part for part in column.split("_") if part in _NORM_OF), ""))
    parts = [f"g-{group}", f"n-{norm}" if norm else "", "text" if column in TEXT else "", column]
    return " ".join(part for part in parts if part)


def _head(column: str, group: str) -> dict[str, str]:
    norm = _NORM_OF.get(next((part for part in column.split("_") if part in _NORM_OF), ""), "")
    tip = LEADERBOARD.get(column) or COST[column]
    words = column.removesuffix("_acc").split("_")
    label = " ".join(_WORDS.get(word, word) for word in words)
    return {"column": column, "label": label, "tip": tip, "classes": _classes(column, group), "norm": norm}


def _line(row: Row, groups: dict[str, list[str]], folder: Path) -> dict[str, Any]:
    cells = []
    for group, columns in groups.items():
        for column in columns:
            value = row[column]
            ends = ("union_low", "union_high") if column == "union_acc" else (f"{column}_low", f"{column}_high")
            interval = f"{row[ends[0]]}\u2013{row[ends[1]]}" if row.get(ends[0], "") != "" else ""
            link = page_of(str(value)) if column == "victim" else ""
            if column == "card":
                link = card_link(folder, str(value))
            text = plain(str(value))
            cells.append(
                {
                    "classes": _classes(column, group),
                    "key": text,
                    "text": text,
                    "interval": interval,
                    "link": link,
                }
            )
    measured = [norm for norm in NORMS if row[f"{norm.lower()}_acc"] != ""]
    searched = " ".join(str(row[name]) for name in ("victim", *_FILTERS))
    return {
        "cells": cells,
        "group": f"{row['suite']} {row['target_dataset']} {row['n']} {row['seed']}",
        "norms": " ".join(measured),
        "find": plain(searched).lower(),
        "first": row["rank"] == 1,
    }


def _widths(heads: Sequence[dict[str, str]], lines: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Column -> its width in rem, with room for the padding and for the arrow of the sorted one.

    Not in the browser's own unit of a character, which differs between the bold and the plain cells of a column.
    """
    found = {}
    for place, head in enumerate(heads):
        texts = [line["cells"][place] for line in lines]
        widest = max((len(cell["text"]) + 0.85 * len(cell["interval"]) for cell in texts), default=0)
        characters = min(max(widest, len(head["label"]) + 3), 42)
        found[head["column"]] = f"{0.53 * characters + 1.4:.2f}"
    return found


def _heat(line: transfer.Crossed, sources: Sequence[str]) -> dict[str, Any]:
    cells = [
        {
            "text": "" if source not in line.rates else f"{line.rates[source]:.2f}",
            "share": f"{line.rates.get(source, 0.0) / 100:.4f}",
            "own": source == line.own,
        }
        for source in sources
    ]
    noise = {"text": "" if line.noise is None else f"{line.noise:.2f}", "share": f"{(line.noise or 0) / 100:.4f}"}
    return {"method": plain(line.method), "own": plain(line.own), "cells": [*cells, {**noise, "own": False}]}
