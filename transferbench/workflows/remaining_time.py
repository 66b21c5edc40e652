"""How long the jobs that are left may take, by the time of those like them that have ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from transferbench.base.durations import duration
from transferbench.jobs.job import Job


class JobSort(NamedTuple):
    """Jobs of one kind that do the same to different networks or examples: the kind, and the part of the label after
    the network's name (`Linf`, `pretrained-neuron`)."""

    kind: str
    part: str

    @classmethod
    def of(cls, job: Job[Any]) -> JobSort:
        return cls(job.kind, job.label.partition(": ")[2])


class RemainingTime:
    """Learns what a job of each sort takes, and how many of each are left."""

    def __init__(self) -> None:
        self._workers = 1
        self._left: Counter[JobSort] = Counter()
        self._spent: dict[JobSort, list[float]] = {}

    def plan(self, jobs: Sequence[Job[Any]], workers: int) -> None:
        """These jobs are left, so many at once."""
        self._left, self._workers = Counter(map(JobSort.of, jobs)), workers

    def end(self, job: Job[Any], seconds: float | None) -> None:
        """A job has ended after so many seconds of its worker; None for one that was finished before, or failed."""
        sort = JobSort.of(job)
        self._left[sort] -= 1
        if seconds is not None:
            self._spent.setdefault(sort, []).append(seconds)

    def text(self) -> str:
        """`about 4 min left`, with the number of jobs of which none has been timed; empty where none is left, or none
        of the sorts that are left has been timed."""
        seconds, unknown = 0.0, 0
        for sort, count in self._left.items():
            mean = self._mean(sort)
            if mean is None:
                unknown += count
            else:
                seconds += mean * count
        if not seconds:
            return ""
        at_once = min(self._workers, self._left.total())
        others = f", not counting {unknown} jobs of other kinds" if unknown else ""
        return f"about {duration(seconds / at_once)} left{others}"

    def _mean(self, sort: JobSort) -> float | None:
        """Seconds of a job of the sort, else of its kind; None where none has ended."""
        alike = self._spent.get(sort) or [
            seconds for other, every in self._spent.items() if other[0] == sort[0] for seconds in every
        ]
        return fmean(alike) if alike else None
