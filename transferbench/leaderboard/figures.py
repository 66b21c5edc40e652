"""Pictures of a leaderboard, SVG and PNG: the same records give the same figures.

Colours are Okabe and Ito's, which the colour-blind can distinguish; a marker or a label repeats what a colour says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from transferbench.base.plot_style import COLOURS, MARKERS, STYLE
from transferbench.base.specifications import NORMS, Norm
from transferbench.leaderboard.column import Row
from transferbench.leaderboard.columns import CLEAN, NOISE, PRETRAINED, SOURCE_UNION, UNION
from transferbench.leaderboard.escape import csv_cell
from transferbench.leaderboard.measurements import curve
from transferbench.leaderboard.pooling import PooledRows, average, pooled, values
from transferbench.leaderboard.rows import leaderboard_rows
from transferbench.results.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SOURCE_ONLY = "source-only"
TITLES = {
    "source-target": "Robustness of the source on its own task, and of the victim on the target (union of the norms)",
    "pareto": "Clean accuracy against union accuracy; the line joins what nothing beats in both",
    "curves": "Robust accuracy over the Linf radius",
    "attacks": "What each attack of the chain broke",
    SOURCE_ONLY: "What an attacker who holds the source alone flips (pre-trained-neuron); beside it random signs",
    "cost": "What a victim costs: its training and the passes of its evaluation",
}


_MOST_NAMED = 30
"""Curves that a legend, and points that labels name: more names would cover the figure. Of more points those that
nothing beats have a label."""


class Board(NamedTuple):
    """The content of the figures: rows over seeds, best union first, and the record of every victim."""

    pools: list[PooledRows]
    by_victim: dict[str, Record]


def markdown(rows: Sequence[Row]) -> str:
    """Links to the figures; empty below two rows, where there is nothing to compare."""
    if len(rows) < 2:
        return ""
    links = [
        f"![{title}](figures/{name}.png)\n\n{title}. [SVG](figures/{name}.svg)" for name, title in _titles(rows).items()
    ]
    return "## Figures\n\n" + "\n\n".join(links)


def _titles(rows: Sequence[Row]) -> dict[str, str]:
    """The figures of a board by name: that of source-only attacks where they were run."""
    measured = any(row[PRETRAINED.name] != "" for row in rows)
    return {name: title for name, title in TITLES.items() if measured or name != SOURCE_ONLY}


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
        SOURCE_ONLY: _source_only,
        "cost": _cost,
    }
    board = Board(pooled(rows), {record.victim: record for record in records})
    (folder / "figures").mkdir(exist_ok=True)
    paths = []
    with pyplot.rc_context(STYLE):
        for name, title in _titles(rows).items():
            figure = drawers[name](board)
            figure.suptitle(title, fontsize=10)
            for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
                path = folder / "figures" / f"{name}.{kind}"
                figure.savefig(path, metadata=metadata, dpi=120)
                paths.append(path)
            pyplot.close(figure)
    return paths


def _figure(columns: int = 1, width: float = 8.0, height: float = 4.5) -> tuple[Figure, list[Axes]]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(width, height), squeeze=False)
    return figure, list(axes.flat)


def _plain(text: str) -> str:
    """A name that stays one: a dollar sign would start a formula, a leading underscore hide a legend's entry."""
    return str(csv_cell(text)).replace("$", r"\$").replace("_", "\u2010" if text.startswith("_") else "_")


def _names(pools: Sequence[PooledRows]) -> list[str]:
    """Method and source of each; the method alone where all have one source."""
    if len({pool.source for pool in pools}) == 1:
        return [_plain(pool.label) for pool in pools]
    return [f"{_plain(pool.label)} ({_plain(pool.source)})" for pool in pools]


def _looks(pools: Sequence[PooledRows]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each source."""
    names = sorted({pool.source for pool in pools})
    return {name: (colour, marker) for name, colour, marker in zip(names, cycle(COLOURS), cycle(MARKERS))}


def _source_target(board: Board) -> Figure:
    pools = [pool for pool in board.pools if average(pool.rows, UNION.name) is not None][::-1]
    figure, (axes,) = _figure(height=1.2 + 0.3 * len(pools))
    looks = _looks(board.pools)
    for place, (_, source, rows) in enumerate(pools):
        colour, marker = looks[source]
        before, after = average(rows, SOURCE_UNION.name), average(rows, UNION.name)
        assert after is not None
        spread = values(rows, UNION.name)
        axes.plot(
            [min(spread), max(spread)], [place, place], color=colour, linewidth=6, alpha=0.25, solid_capstyle="butt"
        )
        if before is not None:
            axes.annotate("", (after, place), (before, place), arrowprops={"arrowstyle": "->", "color": colour})
            axes.plot(before, place, marker="|", color=colour, markersize=12)
        axes.plot(after, place, marker=marker, color=colour)
    axes.set_yticks(range(len(pools)), _names(pools))
    axes.set_xlabel("union accuracy, %: bar the source's, marker the victim's mean, band the range over seeds")
    axes.set_xlim(0, 100)
    return figure


def _pareto(board: Board) -> Figure:
    figure, (axes,) = _figure(height=5.5)
    points = []
    for pool in board.pools:
        clean, union = average(pool.rows, CLEAN.name), average(pool.rows, UNION.name)
        if clean is not None and union is not None:
            points.append((clean, union, pool))
    looks = _looks(board.pools)
    for source, (colour, marker) in looks.items():
        rates = [(clean, union) for clean, union, pool in points if pool.source == source]
        if rates:
            axes.scatter(*zip(*rates, strict=True), color=colour, marker=marker, label=_plain(source), zorder=3)
    front = [
        point
        for point in sorted(points, key=lambda point: (point[0], point[1]))
        if not any((c >= point[0] and u >= point[1]) and (c, u) != point[:2] for c, u, _ in points)
    ]
    for clean, union, names in _labels(points if len(points) <= _MOST_NAMED else front):
        axes.annotate(names, (clean, union), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.plot(*zip(*(point[:2] for point in front), strict=True), color="#777777", linewidth=1, zorder=1)
    axes.set(xlabel="clean accuracy, %", ylabel="union accuracy, %")
    if points:
        axes.legend(title="source", loc="best", fontsize=8)
    return figure


def _labels(points: Sequence[tuple[float, float, PooledRows]]) -> list[tuple[float, float, str]]:
    """One label for points that overlap."""
    labels: list[tuple[float, float, str]] = []
    for clean, union, pool in points:
        for place, (x, y, names) in enumerate(labels):
            if abs(x - clean) < 0.3 and abs(y - union) < 2:
                labels[place] = (x, y, f"{names}, {_plain(pool.label)}")
                break
        else:
            labels.append((clean, union, _plain(pool.label)))
    return labels


def _curves(board: Board) -> Figure:
    sources = sorted({pool.source for pool in board.pools})
    methods = sorted({pool.label for pool in board.pools})
    figure, panels = _figure(len(sources), width=4 + 3.2 * len(sources), height=4.2)
    for axes, source in zip(panels, sources, strict=True):
        for method, _, rows in (pool for pool in board.pools if pool.source == source):
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
        if len(axes.lines) <= _MOST_NAMED:
            axes.legend(fontsize=7)
    panels[0].set_ylabel("robust accuracy, %")
    return figure


def _attacks(board: Board) -> Figure:
    figure, panels = _figure(len(NORMS), width=12, height=1.4 + 0.28 * len(board.pools))
    pools = board.pools[::-1]
    handles: dict[str, Any] = {}
    colours: dict[str, str] = {"wrong on clean": "#BBBBBB"}
    for axes, norm in zip(panels, NORMS, strict=True):
        for place, (_, _, rows) in enumerate(pools):
            left = 0.0
            for name, share in _shares([board.by_victim[str(row["victim"])] for row in rows], norm):
                colour = colours.setdefault(name, COLOURS[(len(colours) - 1) % len(COLOURS)])
                handles[name] = axes.barh(place, share, left=left, color=colour, height=0.7)
                left += share
        axes.set(title=norm, xlim=(0, 100), xlabel="% of those attacked")
        axes.set_yticks(range(len(pools)), _names(pools) if norm == NORMS[0] else [])
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _shares(records: Sequence[Record], norm: Norm) -> list[tuple[str, float]]:
    """(label, mean % of n): wrong on clean, then what each attack broke; the rest of the bar survives."""
    shares: dict[str, list[float]] = {}
    for record in records:
        chain = record.chain(norm)
        if chain is not None:
            shares.setdefault("wrong on clean", []).append(100 * (1 - record.clean_of_chains.count / record.n_chains))
            for part in chain.by_attack:
                shares.setdefault(str(part["attack"]), []).append(100 * part["broke"] / record.n_chains)
    return [(name, mean(numbers)) for name, numbers in shares.items()]


def _source_only(board: Board) -> Figure:
    """A line per row, what is flipped most on top: the attack's mean and range over seeds, and its control's."""
    measured = [(average(pool.rows, PRETRAINED.name), pool) for pool in board.pools]
    pools = [pool for asr, pool in sorted((one for one in measured if one[0] is not None), key=lambda one: one[0] or 0)]
    figure, (axes,) = _figure(height=1.2 + 0.3 * len(pools))
    looks = ((NOISE, "random signs", COLOURS[0], "o", -0.12), (PRETRAINED, "pre-trained-neuron", COLOURS[1], "D", 0.12))
    for column, label, colour, marker, shift in looks:
        means = [average(pool.rows, column.name) for pool in pools]
        places = [place + shift for place, value in enumerate(means) if value is not None]
        axes.plot(
            [value for value in means if value is not None],
            places,
            marker=marker,
            color=colour,
            linestyle="",
            label=label,
        )
        for place, pool in enumerate(pools):
            spread = values(pool.rows, column.name)
            if spread:
                axes.plot([min(spread), max(spread)], [place + shift] * 2, color=colour, linewidth=1)
    axes.set_yticks(range(len(pools)), _names(pools))
    axes.set(xlim=(0, 100), xlabel="% of the examples that are correct on clean: mean and range over seeds")
    axes.legend(loc="lower right", fontsize=8)
    return figure


def _cost(board: Board) -> Figure:
    figure, panels = _figure(2, width=10, height=1.2 + 0.28 * len(board.pools))
    pools = board.pools[::-1]
    seconds = [
        mean(float(board.by_victim[str(row["victim"])].cost.get("train_seconds", 0)) for row in pool.rows)
        for pool in pools
    ]
    passes = [
        mean((int(row["forwards"]) + int(row["backwards"])) / int(row.get("n_chains") or row["n"]) for row in pool.rows)
        for pool in pools
    ]
    for axes, numbers, name in zip(
        panels, (seconds, passes), ("training, s (one machine's)", "passes per example in all chains"), strict=True
    ):
        axes.barh(range(len(pools)), numbers, color=COLOURS[0], height=0.7)
        axes.set_xlabel(name)
        axes.set_yticks(range(len(pools)), _names(pools) if axes is panels[0] else [])
    return figure
