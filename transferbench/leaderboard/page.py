"""The page: index.html and a page per victim, a static folder that opens from disk without a network.

A function of the records, the cards and the example galleries of the folder: building twice gives the same bytes.
Jinja2 escapes every text, whatever a template's file is called; scripts and styles are files of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transferbench.base import atomic_files
from transferbench.base.ids import without_seed
from transferbench.base.names import file_stem
from transferbench.base.specifications import NORMS, Norm
from transferbench.leaderboard import figures, notes, transfer, victim_page
from transferbench.leaderboard.column import Column, Group, Row, build_row
from transferbench.leaderboard.columns import COST, LEADERBOARD, RANK, UNION, VICTIM
from transferbench.leaderboard.escape import plain
from transferbench.leaderboard.families import BoardColumn
from transferbench.leaderboard.links import TEMPLATES, environment, page_of
from transferbench.leaderboard.pooled_rows import METHODS, PooledRow, pooled_rows
from transferbench.leaderboard.rows import cost_rows, leaderboard_rows
from transferbench.results.records import Record

_ASSETS = ("page.css", "page.js")
DOWNLOADS = ("methods.csv", "leaderboard.csv", "leaderboard.json", "leaderboard.parquet")
FILES = (
    "leaderboard.md",
    "cost.csv",
    "transfer.csv",
    "source_only.csv",
    "queries.csv",
    "image_files.csv",
    "extensions.csv",
    "external.csv",
    "published.md",
)


def write(folder: Path, records: Sequence[Record]) -> Path:
    """Write the page into its board's folder and delete pages of former victims. Returns index.html."""
    contents = render(folder, records)
    (folder / "pages").mkdir(exist_ok=True)
    for name, content in contents.items():
        atomic_files.write_text(folder / name, content)
    for stale in (folder / "pages").glob("*.html"):
        if f"pages/{stale.name}" not in contents:
            stale.unlink()
    return folder / "index.html"


def check(folder: Path, records: Sequence[Record]) -> list[str]:
    """The files of the page that differ from what the records give; none where there is no page."""
    if not (folder / "index.html").is_file():
        return []
    fix = f"transferbench leaderboard --html {folder}"
    return [
        f"{folder / name}: differs from its records; {fix}"
        for name, content in render(folder, records).items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != content.encode()
    ]


def render(folder: Path, records: Sequence[Record]) -> dict[str, str]:
    """File name -> content of the whole page. Reads the folder's cards and galleries; cards also where published
    boards have theirs."""
    rows = {str(row["victim"]): row for row in leaderboard_rows(records)}
    pages = [record for record in records if record.victim in rows or record.role == "source"]
    contents = {name: (TEMPLATES / name).read_text(encoding="utf-8") for name in _ASSETS}
    contents["index.html"] = _index(folder, pages, list(rows.values()))
    victims = {record.victim for record in pages}
    for record in pages:
        name = f"pages/{file_stem(record.victim)}.html"
        contents[name] = victim_page.render(folder, record, rows.get(record.victim), victims)
    return contents


def _index(folder: Path, records: Sequence[Record], rows: Sequence[Row]) -> str:
    costs = {str(row["victim"]): row for row in cost_rows(records)}
    wide: list[Row] = [{**costs[str(row["victim"])], **row} for row in rows]
    layout = _layout(wide)
    victims = [record for record in records if record.role == "victim"]
    protocols = [plain(text) for text in sorted({record.protocol for record in victims})]
    constants = [
        f"{column.heading} {plain(wide[0][column.name])}" for column in layout.get(Group.MORE, []) if column.setting
    ]
    filters = [
        (column.name, column.filter, sorted({plain(row[column.name]) for row in rows if row[column.name] != ""}))
        for column in LEADERBOARD
        if column.filter
    ]
    heads = [_head(column, group) for group, columns in layout.items() for column in columns]
    lines = [_line(row, layout, folder) for row in wide]
    text: str = (
        environment()
        .get_template("index.html")
        .render(
            up="",
            title=" / ".join(sorted({plain(record.suite) for record in victims})) or "No victim yet",
            subtitle="; ".join([*protocols, *constants]),
            notes_title=notes.TITLE,
            notes=[
                block._replace(items=[plain(item) for item in block.items])
                for block in notes.blocks(notes.read(folder))
            ],
            methods=_methods(pooled_rows(records, rows)),
            groups=list(layout),
            filters=[(name, label, options) for name, label, options in filters if len(options) > 1],
            norms=_norms(rows),
            heads=heads,
            rows=lines,
            widths=_widths(heads, lines),
            matrices=[_matrix(attack, matrix) for attack, matrix in transfer.matrices(records).items()],
            figures=[item for item in figures.TITLES.items() if (folder / f"figures/{item[0]}.svg").is_file()],
            sources=[(record.victim, page_of(record.victim)) for record in records if record.role == "source"],
            downloads=[name for name in DOWNLOADS if (folder / name).is_file()],
            files=[name for name in FILES if (folder / name).is_file()],
        )
    )
    return text


def _methods(over_seeds: Sequence[PooledRow]) -> dict[str, Any]:
    """The first table: a row per method and source, each with the rows of its seeds below it."""
    cells = [build_row(METHODS, one) for one in over_seeds]
    columns = [column for column in METHODS if column.heading and any(row[column.name] != "" for row in cells)]
    lines = []
    for one, row in zip(over_seeds, cells, strict=True):
        first = one.rows[0]
        name = f"{first['target_dataset']}-{without_seed(str(first['victim']), int(first['seed']))}"
        lines.append(
            {
                "anchor": f"row-{file_stem(name)}",
                "first": row["rank"] == "1",
                "cells": [_method_cell(column, row, one) for column in columns],
                "seeds": [[_seed_cell(column, seed) for column in columns] for seed in one.rows],
            }
        )
    heads = [{"label": one.heading, "tip": one.meaning, "text": one.text, "name": one.name} for one in columns]
    return {"heads": heads, "lines": lines}


def _method_cell(column: Column[PooledRow], row: Row, one: PooledRow) -> dict[str, str]:
    ends = [str(row[end]) for end in column.interval or () if row[end] != ""]
    # A single seed has no range; a dash between signed numbers would read as another minus.
    between = " to " if column.name == "less_finetune" else "\u2013"
    interval = "" if len(one.rows) < 2 and column.name != "less_finetune" else between.join(ends)
    tip = ""
    if column.name == "letters" and one.letters:
        tip = f"beats {_listed(one.beats)}; beaten by {_listed(one.beaten_by)}"
    elif column.name == "less_finetune" and one.gain is not None:
        tip = f"compared with {one.baseline} of {one.source}, over the seeds that both have; p = {one.gain.p:.2g}"
    return {"name": column.name, "text": plain(row[column.name]), "interval": interval, "tip": plain(tip)}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _seed_cell(column: Column[PooledRow], row: Row) -> dict[str, str]:
    """The cell of one seed in a column of the table over seeds."""
    if column.name == "method":
        victim = str(row["victim"])
        return {"name": column.name, "text": plain(victim), "interval": "", "link": page_of(victim)}
    text = str(row["seed"]) if column.name == "seeds" else str(row.get(column.name, ""))
    ends = [str(row[f"{column.name}_{side}"]) for side in ("low", "high") if f"{column.name}_{side}" in row]
    if column.name == UNION.name:
        ends = [str(row[end]) for end in UNION.interval or ()]
    return {"name": column.name, "text": plain(text), "interval": "\u2013".join(filter(None, ends)), "link": ""}


def _layout(rows: Sequence[Row]) -> dict[Group, list[BoardColumn]]:
    """The columns of each group that some row fills. Settings that are the same in every row go to the last group."""
    layout: dict[Group, list[BoardColumn]] = {group: [] for group in Group}
    constants = []
    for column in sorted([*LEADERBOARD, *COST], key=lambda column: column.page_order):
        cells = {row[column.name] for row in rows}
        if column.group is None or not (cells - {""} or column in (RANK, VICTIM)):
            continue
        if column.setting and len(cells) == 1:
            constants.append(column)
        else:
            layout[column.group].append(column)
    layout[Group.MORE] = [*constants, *layout[Group.MORE]]
    return {group: columns for group, columns in layout.items() if columns}


def _norms(rows: Sequence[Row]) -> list[Norm]:
    """The norms whose chain some row was measured with."""
    measured = {column.norm for column in LEADERBOARD if column.metric and any(row[column.name] != "" for row in rows)}
    return [norm for norm in NORMS if norm in measured]


def _classes(column: BoardColumn, group: Group) -> str:
    norm = f"n-{column.norm}" if column.norm else ""
    return " ".join(filter(None, [f"g-{group.key}", norm, "text" if column.text else "", column.name]))


def _head(column: BoardColumn, group: Group) -> dict[str, str]:
    return {
        "column": column.name,
        "label": column.heading,
        "tip": column.meaning,
        "classes": _classes(column, group),
        "norm": column.norm or "",
    }


def _line(row: Row, layout: dict[Group, list[BoardColumn]], folder: Path) -> dict[str, Any]:
    identity = [VICTIM, *(column for column in LEADERBOARD if column.filter)]
    return {
        "cells": [_cell(row, column, group, folder) for group, columns in layout.items() for column in columns],
        "group": f"{row['suite']} {row['target_dataset']} {row['n']} {row['seed']}",
        "norms": " ".join(_norms([row])),
        "anchor": f"victim-{file_stem(str(row['victim']))}",
        "find": plain(" ".join(str(row[column.name]) for column in identity)).lower(),
        "first": row["rank"] == 1,
    }


def _cell(row: Row, column: BoardColumn, group: Group, folder: Path) -> dict[str, str]:
    value = str(row[column.name])
    return {
        "classes": _classes(column, group),
        "text": plain(value),
        "interval": "\u2013".join(str(row[end]) for end in column.interval or () if row[end] != ""),
        "link": column.link(folder, value) if column.link else "",
    }


def _widths(heads: Sequence[dict[str, str]], lines: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Column -> its width in rem, including the padding and the arrow of the sorted one.

    Not in the browser's own unit of a character, which differs between the bold and the plain cells of a column.
    """
    widths = {}
    for place, head in enumerate(heads):
        cells = [line["cells"][place] for line in lines]
        widest = max((len(cell["text"]) + 0.85 * len(cell["interval"]) for cell in cells), default=0)
        characters = min(max(widest, len(head["label"]) + 3), 42)
        widths[head["column"]] = f"{0.53 * characters + 1.4:.2f}"
    return widths


def _matrix(attack: str, matrix: Sequence[transfer.MatrixRow]) -> dict[str, Any]:
    sources = sorted({source for line in matrix for source in line.rates})
    lines = []
    for line in matrix:
        cells = [{**_heat(line.rates.get(source)), "own": source == line.own} for source in sources]
        noise = {**_heat(line.noise), "own": False}
        lines.append({"method": plain(line.method), "own": plain(line.own), "cells": [*cells, noise]})
    return {"attack": attack, "sources": sources, "lines": lines}


def _heat(rate: float | None) -> dict[str, str]:
    """The text of a rate and its share, which colours the cell."""
    return {"text": "" if rate is None else f"{rate:.2f}", "share": f"{(rate or 0) / 100:.4f}"}
