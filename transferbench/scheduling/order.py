"""Which of the ready jobs begins next, and how much work is left."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from typing import Any

from transferbench.jobs.evaluation import EvaluationJob
from transferbench.jobs.job import Job


class Order:
    """The ready jobs of a plan. With `longest_first` those on which the longest work waits come first; else, for one
    worker, those that come first in the plan.

    Jobs about one network have one priority, the highest of them: a network is prepared once where its jobs follow one
    another. `left` is an estimate in gradient passes (Job.passes) of what has not ended; `done` are the names of jobs
    that are finished already.
    """

    def __init__(self, jobs: Sequence[Job[Any]], done: Collection[str], longest_first: bool) -> None:
        self.numbers = {job.name: number for number, job in enumerate(jobs)}
        passes = {job.name: job.passes for job in jobs}
        self._open = {name: count for name, count in passes.items() if name not in done}
        self.left = sum(self._open.values())
        self._ready: list[tuple[float, int]] = []
        self._priorities = _priorities(jobs, passes) if longest_first else {}

    def __bool__(self) -> bool:
        return bool(self._ready)

    def add(self, name: str) -> None:
        """A job whose inputs are there."""
        heapq.heappush(self._ready, (-self._priorities.get(name, 0.0), self.numbers[name]))

    def pop(self) -> int:
        """The number, in the plan, of the job to begin."""
        return heapq.heappop(self._ready)[1]

    def close(self, name: str) -> None:
        """A job has ended, or was done at the beginning."""
        self.left = max(0.0, self.left - self._open.pop(name, 0.0))


def _priorities(jobs: Sequence[Job[Any]], passes: dict[str, float]) -> dict[str, float]:
    """By job: the passes of the longest chain of jobs that begins with it, or with another about its network."""
    longest = dict.fromkeys(passes, 0.0)
    for job in reversed(jobs):
        # What follows the job is in already: a plan has inputs first.
        longest[job.name] += passes[job.name]
        for needed in job.inputs:
            if needed.name in longest:
                longest[needed.name] = max(longest[needed.name], longest[job.name])
    by_network: dict[str, float] = {}
    for job in jobs:
        if isinstance(job, EvaluationJob):
            by_network[job.network.name] = max(by_network.get(job.network.name, 0.0), longest[job.name])
    return {
        job.name: by_network[job.network.name] if isinstance(job, EvaluationJob) else longest[job.name] for job in jobs
    }
