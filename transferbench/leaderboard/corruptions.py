"""Scores of a benchmark of corrupted images: RobustBench's mean accuracy and mCE, each with a 95 % interval.

All parts of a benchmark are corruptions of the same n images, so an image, not a prediction, is the unit of the
intervals. The accuracy's is Wilson's at the effective number of images, acc (1 - acc) / Var(mean over images); the
mCE's is normal, mCE being a mean over images too (its baseline is a constant).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from transferbench.base.corruptions import CorruptionThreat, benchmark
from transferbench.base.dataset_id import DatasetId
from transferbench.leaderboard.statistics import Z_95, wilson_of_share
from transferbench.results.records import CorruptionRecord, Record


@dataclass(frozen=True)
class Score:
    """A value, a share or a ratio, with the ends of its interval."""

    value: float
    low: float
    high: float

    @property
    def percent(self) -> str:
        return f"{100 * self.value:.2f}"

    @property
    def interval(self) -> tuple[str, str]:
        return f"{100 * self.low:.2f}", f"{100 * self.high:.2f}"


@dataclass(frozen=True)
class CorruptionScores:
    """`accuracy` is the mean over all corruptions and severities, `mce` None where RobustBench has none."""

    accuracy: Score
    mce: Score | None
    counts: dict[str, list[int]]


def scores(record: Record, threat: CorruptionThreat) -> CorruptionScores | None:
    """The scores of a record's benchmark, None where it was not measured."""
    measured = record.corrupted(threat)
    if measured is None:
        return None
    right = np.array([part.correct.list() for part in measured.parts], dtype=bool)
    n, of_image = record.n, right.mean(axis=0)
    share = int(right.sum()) / right.size
    variance = float(of_image.var(ddof=1)) / n if n > 1 else 0.0
    effective = share * (1 - share) / variance if variance else n
    low, high = wilson_of_share(share, min(max(effective, n), right.size))
    return CorruptionScores(Score(share, low, high), _mce(record, measured, ~right), measured.counts())


def _mce(record: Record, measured: CorruptionRecord, wrong: np.ndarray) -> Score | None:
    of = benchmark(measured.threat, DatasetId.parse(record.target_dataset).base)
    if not of.baseline or DatasetId.parse(record.target_dataset).items:
        # AlexNet was measured on all classes.
        return None
    of_image = np.array([of.weight(part.corruption) for part in measured.parts]) @ wrong
    value = float(of_image.mean())
    half = Z_95 * float(of_image.std(ddof=1)) / sqrt(record.n) if record.n > 1 else value
    return Score(value, max(0.0, value - half), value + half)
