"""Pictures of a leaderboard, SVG and PNG: the same records give the same figures.

Colours are Okabe and Ito's, told apart by the colour-blind; what a colour says, a marker or a label says too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from transferbench.base.specifications import NORMS, Norm
from transferbench.leaderboard.escape import csv_cell
from transferbench.leaderboard.pooling import average, pooled, values
from transferbench.leaderboard.rows import Row, curve, leaderboard_rows
from transferbench.results.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
TITLES = {
    "source-target": "Robustness of the source on its own task, and of the victim on the target (union of the norms)",
    "pareto": "Clean accuracy against union accuracy; the line joins what nothing beats in both",
    "curves": "Robust accuracy over the Linf radius",
    "attacks": "What each attack of the chain broke",
    "cost": "What a victim costs: its training and the passes of its evaluation",
}
STYLE: Any = {
    "svg.hashsalt": "transferbench",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
}
Group = tuple[str, str, list[Row]]


class Board(NamedTuple):
    """What is drawn: rows over seeds, best union first, and the record of every victim."""

    groups: list[Group]
    by_victim: dict[str, Record]


def markdown(rows: Sequence[Row]) -> str:
    """Links to the figures; empty below two rows, where there is nothing to compare."""
    if len(rows) < 2:
        return ""
    shown = [f"![{title}](figures/{name}.png)\n\n{title}. [SVG](figures/{name}.svg)" for name, title in TITLES.items()]
    return "## Figures\n\n" + "\n\n".join(shown)


def write(folder: Path, records: Sequence[Record]) -> list[Path]:
    """figures/*.svg and *.png below the folder; nothing below two rows. Returns the files."""
    rows = leaderboard_rows(records)
    if len(rows) < 2:
        return []
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawers: dict[str, Callable[[Board], Figure]] = {
        "source-target": _source_target,
        "pareto": _pareto,
        "curves": _curves,
        "attacks": _attacks,
        "cost": _cost,
    }
    board = Board(pooled(rows), {record.victim: record for record in records})
    (folder / "figures").mkdir(exist_ok=True)
    written = []
    with pyplot.rc_context(STYLE):
        for name, draw in drawers.items():
            figure = draw(board)
            figure.suptitle(TITLES[name], fontsize=10)
            for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
                path = folder / "figures" / f"{name}.{kind}"
                figure.savefig(path, metadata=metadata, dpi=120)
                written.append(path)
            pyplot.close(figure)
    return written


def _figure(columns: int = 1, width: float = 8.0, height: float = 4.5) -> tuple[Figure, list[Axes]]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(width, height), squeeze=False)
    return figure, list(axes.flat)


def _plain(text: str) -> str:
    """A name that stays one: a dollar sign would start a formula, a leading underscore hide a legend's entry."""
    return str(csv_cell(text)).replace("$", r"\$").replace("_", "\u2010" if text.startswith("_") else "_")


def _label(group: Group) -> str:
    return f"{_plain(group[0])} ({_plain(group[1])})"


def _sources(groups: Sequence[Group]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each source."""
    names = sorted({source for _, source, _ in groups})
    return {name: (colour, marker) for name, colour, marker in zip(names, cycle(COLOURS), cycle(MARKERS))}


def _source_target(board: Board) -> Figure:
    shown = [group for group in board.groups if average(group[2], "union_acc") is not None][::-1]
    figure, (axes,) = _figure(height=1.2 + 0.3 * len(shown))
    looks = _sources(board.groups)
    for place, (_, source, rows) in enumerate(shown):
        colour, marker = looks[source]
        before, after = average(rows, "source_union_acc"), average(rows, "union_acc")
        assert after is not None
        spread = values(rows, "union_acc")
        axes.plot(
            [min(spread), max(spread)], [place, place], color=colour, linewidth=6, alpha=0.25, solid_capstyle="butt"
        )
        if before is not None:
            axes.annotate("", (after, place), (before, place), arrowprops={"arrowstyle": "->", "color": colour})
            axes.plot(before, place, marker="|", color=colour, markersize=12)
        axes.plot(after, place, marker=marker, color=colour)
    axes.set_yticks(range(len(shown)), [_label(group) for group in shown])
    axes.set_xlabel("union accuracy, %: bar the source's, marker the victim's mean, band the range over seeds")
    axes.set_xlim(0, 100)
    return figure


def _pareto(board: Board) -> Figure:
    figure, (axes,) = _figure(height=5.5)
    points = []
    for group in board.groups:
        clean, union = average(group[2], "clean_acc"), average(group[2], "union_acc")
        if clean is not None and union is not None:
            points.append((clean, union, group))
    looks = _sources(board.groups)
    for source, (colour, marker) in looks.items():
        mine = [(clean, union) for clean, union, group in points if group[1] == source]
        if mine:
            axes.scatter(*zip(*mine, strict=True), color=colour, marker=marker, label=_plain(source), zorder=3)
    for clean, union, names in _labels(points):
        axes.annotate(names, (clean, union), xytext=(4, 4), textcoords="offset points", fontsize=8)
    front = [
        (clean, union)
        for clean, union, _ in sorted(points, key=lambda point: (point[0], point[1]))
        if not any((c >= clean and u >= union) and (c, u) != (clean, union) for c, u, _ in points)
    ]
    axes.plot(*zip(*front, strict=True), color="#777777", linewidth=1, zorder=1)
    axes.set(xlabel="clean accuracy, %", ylabel="union accuracy, %")
    axes.legend(title="source", loc="best", fontsize=8)
    return figure


def _labels(points: Sequence[tuple[float, float, Group]]) -> list[tuple[float, float, str]]:
    """One label for points that lie on each other."""
    found: list[tuple[float, float, str]] = []
    for clean, union, group in points:
        for place, (x, y, names) in enumerate(found):
            if abs(x - clean) < 0.3 and abs(y - union) < 2:
                found[place] = (x, y, f"{names}, {_plain(group[0])}")
                break
        else:
            found.append((clean, union, _plain(group[0])))
    return found


def _curves(board: Board) -> Figure:
    sources = sorted({source for _, source, _ in board.groups})
    methods = sorted({method for method, _, _ in board.groups})
    figure, panels = _figure(len(sources), width=4 + 3.2 * len(sources), height=4.2)
    for axes, source in zip(panels, sources, strict=True):
        for method, _, rows in (group for group in board.groups if group[1] == source):
            curves = [dict(curve(board.by_victim[str(row["victim"])], "Linf")) for row in rows]
            radii = sorted(set.intersection(*(set(points) for points in curves)))
            rates = [100 * mean(points[radius] for points in curves) for radius in radii]
            number = methods.index(method)
            # A method looks the same in every panel; where colours repeat, markers and lines do not.
            colour, marker = COLOURS[number % 8], MARKERS[(number + number // 8) % 8]
            line = ("-", "--", ":")[number // 8 % 3]
            look: Any = {"color": colour, "marker": marker, "markersize": 4, "linestyle": line}
            axes.plot([float(radius) for radius in radii], rates, label=_plain(method), **look)
        axes.set(title=_plain(source), xlabel="Linf radius, [0,1] pixels", ylim=(0, 100))
        axes.legend(fontsize=7)
    panels[0].set_ylabel("robust accuracy, %")
    return figure


def _attacks(board: Board) -> Figure:
    figure, panels = _figure(len(NORMS), width=12, height=1.4 + 0.28 * len(board.groups))
    shown = board.groups[::-1]
    handles: dict[str, Any] = {}
    colours: dict[str, str] = {"wrong on clean": "#BBBBBB"}
    for axes, norm in zip(panels, NORMS, strict=True):
        for place, (_, _, rows) in enumerate(shown):
            left = 0.0
            for name, share in _shares([board.by_victim[str(row["victim"])] for row in rows], norm):
                colour = colours.setdefault(name, COLOURS[(len(colours) - 1) % len(COLOURS)])
                handles[name] = axes.barh(place, share, left=left, color=colour, height=0.7)
                left += share
        axes.set(title=norm, xlim=(0, 100), xlabel="% of n")
        axes.set_yticks(range(len(shown)), [_label(group) for group in shown] if norm == NORMS[0] else [])
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _shares(records: Sequence[Record], norm: Norm) -> list[tuple[str, float]]:
    """(what, mean % of n): wrong on clean, then what each attack broke; the rest of the bar survives."""
    found: dict[str, list[float]] = {}
    for record in records:
        chain = record.chain(norm)
        if chain is not None:
            found.setdefault("wrong on clean", []).append(100 * (1 - record.clean.count / record.n))
            for part in chain.by_attack:
                found.setdefault(str(part["attack"]), []).append(100 * part["broke"] / record.n)
    return [(name, mean(shares)) for name, shares in found.items()]


def _cost(board: Board) -> Figure:
    figure, panels = _figure(2, width=10, height=1.2 + 0.28 * len(board.groups))
    shown = board.groups[::-1]
    costs = [[board.by_victim[str(row["victim"])].cost for row in rows] for _, _, rows in shown]
    seconds = [mean(float(cost.get("train_seconds", 0)) for cost in found) for found in costs]
    passes = [
        mean((int(row["forwards"]) + int(row["backwards"])) / int(row["n"]) for row in rows) for _, _, rows in shown
    ]
    for axes, found, name in zip(
        panels, (seconds, passes), ("training, s (one machine's)", "passes per example in all chains"), strict=True
    ):
        axes.barh(range(len(shown)), found, color=COLOURS[0], height=0.7)
        axes.set_xlabel(name)
        axes.set_yticks(range(len(shown)), [_label(group) for group in shown] if axes is panels[0] else [])
    return figure
