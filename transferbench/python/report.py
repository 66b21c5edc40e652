"""The result of `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from transferbench.base.results import Cost, DrawCounts
from transferbench.python import report_file, report_summary

if TYPE_CHECKING:
    import pandas as pd

    from transferbench.python.report_figure import ReportFigure


@dataclass
class TotalCost(Cost):
    """All chains together; `by_attack` has one row per (threat, attack): tries, broke, standing, passes.

    `checks` also counts the pre-flight, backwards included, and the judging of the source-only attack's points. The
    passes that made those points went through the source, not through the model: `Report.source_only` counts them.
    """

    by_attack: pd.DataFrame | None = None


@dataclass(frozen=True)
class Report:
    """The result of an evaluation. Rates are fractions of all n. `print(report)` is `summary()`.

    `clean`; `robust` by threat; `union` over threats, None unless each norm has one radius. `verdicts`: one row per
    (example, threat), clean-wrong ones included, with the columns example (position), threat, fooled, attack
    (`clean` for the clean-wrong, empty for survivors), try, pred, distance, tie. `x_adv` by threat: n rows, the
    clean image where no adversarial example was found. `source_only`, where a source was given: under every Linf
    radius and `renofeation` a row for each attack that holds the source alone, one for the noise control, and rows for
    the controls that are made of an attack's points (`of`), with the columns threat, attack, of, tries, flipped
    (examples that were correct and any of the tries flipped), correct, n, passes (through the source), images (what a
    universal delta was made on), noise (flipped by as many random signs), difference less noise in points with the
    ends low, high of its 95 % interval. `queried`, where attacks were named that also ask the model: rows with threat,
    attack, queries (within so many), correct, fooled, control, difference, low, high. `flags`: see
    engine.preflight.FLAGS; `flag_rows`: the largest number of clean-correct examples, over threats, of those that are
    counted by example. `batch`: the rows in flight that the verdicts belong to, where the model's answers depend on
    them; None otherwise. `draws` by threat: how a randomised model was attacked and judged, with the spread over the
    judge's seeds and the count by single draws.
    `radii`: the radius of each threat by its name, as it was given (`8/255`).
    """

    n: int
    clean: float
    robust: dict[str, float]
    union: float | None
    verdicts: pd.DataFrame = field(repr=False)
    x_adv: dict[str, Tensor] = field(repr=False)
    cost: TotalCost
    source_only: pd.DataFrame | None = None
    queried: pd.DataFrame | None = None
    flags: tuple[str, ...] = field(default=())
    flag_rows: dict[str, int] = field(default_factory=dict)
    batch: int | None = None
    draws: dict[str, DrawCounts] = field(default_factory=dict)
    radii: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        """The summary as a table, for notebooks."""
        return report_summary.html(self)

    def summary(self) -> str:
        """A few lines: every rate with n and its 95 % Wilson interval, what each attack broke, flags, passes."""
        return report_summary.text(self)

    def to_frame(self) -> pd.DataFrame:
        """A row per rate, with the columns measure (`clean`, `robust`, `union`, `source-only`), threat, eps, attack and
        tries (of source-only attacks), count, n, rate (count / n) and the ends low, high of its 95 % Wilson interval.

        `n` are all examples, of source-only attacks the clean-correct ones; where there are none, rate, low and high
        are NaN.
        """
        return report_summary.frame(self)

    def plot(self) -> ReportFigure:
        """A matplotlib figure: every rate of `to_frame` as a bar with its 95 % interval. A notebook displays it,
        `figure.savefig(path)` writes it; nothing global of matplotlib is changed."""
        from transferbench.python import report_figure

        return report_figure.draw(self)

    def save(self, path: str | Path) -> Path:
        """Write every field, without pickle: into the one file `path` if it ends in .safetensors (JSON in its header),
        else into the folder `path` (report.json, x_adv.safetensors). An earlier report there is replaced.

        Returns the path. InputError where it cannot be written.
        """
        return report_file.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """The report that `save` wrote, every field as it was; `x_adv` on the CPU.

        InputError for what is no report, damaged, or of a newer version.
        """
        return report_file.load(cls, path)
