"""A report's rates with their intervals as a figure."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure

from transferbench.base.plot_style import COLOURS, STYLE
from transferbench.leaderboard.statistics import wilson
from transferbench.python.report_summary import rates

if TYPE_CHECKING:
    from transferbench.python.report import Report

_COLOUR_OF = dict(zip(("clean", "robust", "union", "source-only"), COLOURS, strict=False))


class ReportFigure(Figure):
    """A figure outside of pyplot, which a notebook displays all the same."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=110)
        return content.getvalue()


def draw(report: Report) -> ReportFigure:
    """Bars in percent with 95 % Wilson intervals, the first rate on top; rates without an example are left out."""
    shown = [one for one in rates(report) if one.rate.n]
    with rc_context(STYLE):
        figure = ReportFigure(figsize=(6, 1 + 0.35 * len(shown)))
        axes = figure.add_subplot()
        for place, one in enumerate(shown):
            low, high = (100 * end for end in wilson(*one.rate))
            middle = one.rate.points
            label = f"{one.label} (flipped)" if one.attack else one.label
            axes.barh(label, middle, color=_COLOUR_OF[one.measure], height=0.7)
            # Rounding may put an end of the interval of 0 or n successes on the other side of the rate.
            errors = [[max(0.0, middle - low)], [max(0.0, high - middle)]]
            axes.errorbar(middle, place, xerr=errors, color="black", capsize=3, linewidth=1)
        axes.set(xlim=(0, 100), xlabel=f"% with 95 % interval, n = {report.n}")
        axes.invert_yaxis()
    return figure
