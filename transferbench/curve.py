"""The picture of a training: its loss by parts over the steps, phase after phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from transferbench.leaderboard.figures import COLOURS, STYLE

_OTHER = ("step", "phase", "lr")


def draw(path: Path, log: Sequence[Mapping[str, Any]], title: str) -> None:
    """A PNG of a training's log (train.Trained.log): one line for each part of the loss, the rate below, phases
    separated by a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = [name for name in dict.fromkeys(name for row in log for name in row) if name not in _OTHER]
    with pyplot.rc_context(STYLE):
        figure, (loss, rate) = pyplot.subplots(2, 1, figsize=(7, 5), sharex=True, height_ratios=(3, 1))
        for number, name in enumerate(parts):
            rows = [row for row in log if name in row]
            colour, line = COLOURS[number % len(COLOURS)], ("-", "--")[number // len(COLOURS) % 2]
            steps, values = [row["step"] for row in rows], [row[name] for row in rows]
            loss.plot(steps, values, color=colour, linestyle=line, label=name)
        rate.plot([row["step"] for row in log], [row["lr"] for row in log], color=COLOURS[-2])
        for before, after in pairwise(log):
            if before["phase"] != after["phase"]:
                for axes in (loss, rate):
                    axes.axvline(after["step"], color="#999999", linewidth=0.8)
        loss.set_ylabel("loss by its parts")
        rate.set(xlabel="step", ylabel="learning rate")
        if parts:
            loss.legend(fontsize=8)
        figure.suptitle(title.replace("$", r"\$"), fontsize=10)
        figure.savefig(path, metadata={"Software": None}, dpi=110)
        pyplot.close(figure)
