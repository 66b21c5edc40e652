"""Plots the log of a training: the terms of the loss, accuracies and learning rate over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from transferbench.base.plot_style import COLOURS, STYLE

_OTHER = ("step", "phase", "lr")
_ACCURACIES = ("train ", "val ")


def draw(path: Path, log: Sequence[Mapping[str, Any]], title: str) -> None:
    """Write a PNG of a training's log: the terms of the loss, the monitor's accuracies if any, and the learning rate.

    Vertical lines separate the phases.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in dict.fromkeys(name for row in log for name in row) if name not in _OTHER]
    shares = [name for name in names if name.startswith(_ACCURACIES)]
    parts = [name for name in names if name not in shares]
    heights = (3, 2, 1) if shares else (3, 1)
    with pyplot.rc_context(STYLE):
        figure, axes_of = pyplot.subplots(
            len(heights), 1, figsize=(7, 7 if shares else 5), sharex=True, height_ratios=heights
        )
        loss, rate = axes_of[0], axes_of[-1]
        _lines(loss, log, parts)
        if shares:
            _lines(axes_of[1], log, shares, "o")
            axes_of[1].set(ylabel="share right", ylim=(-0.03, 1.03))
            axes_of[1].legend(fontsize=8, ncols=2)
        rate.plot([row["step"] for row in log], [row["lr"] for row in log], color=COLOURS[-2])
        for before, after in pairwise(log):
            if before["phase"] != after["phase"]:
                for axes in axes_of:
                    axes.axvline(after["step"], color="#999999", linewidth=0.8)
        loss.set_ylabel("loss by its parts")
        rate.set(xlabel="step", ylabel="learning rate")
        if parts:
            loss.legend(fontsize=8)
        figure.suptitle(title.replace("$", r"\$"), fontsize=10)
        figure.savefig(path, metadata={"Software": None}, dpi=110)
        pyplot.close(figure)


def _lines(axes: Any, log: Sequence[Mapping[str, Any]], names: Sequence[str], marker: str = "") -> None:
    for number, name in enumerate(names):
        rows = [row for row in log if name in row]
        colour, line = COLOURS[number % len(COLOURS)], ("-", "--")[number // len(COLOURS) % 2]
        steps, values = [row["step"] for row in rows], [row[name] for row in rows]
        axes.plot(steps, values, color=colour, linestyle=line, marker=marker, markersize=3, label=name)
