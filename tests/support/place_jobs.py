"""Jobs that say where they ran, for tests of worker processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.errors import FaultError
from transferbench.base.progress import OnProgress, Progress, ignore
from transferbench.base.results import CleanResult, Cost
from transferbench.jobs.job import Job, Need, Output, Results
from transferbench.jobs.resources import Resources


class TwoWordsError(Exception):
    """Pickled, it cannot be read: its arguments are not those that it was made of."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


@dataclass(frozen=True)
class PlaceJob(Job[CleanResult]):
    """Writes a line `label GPU` to `log` when it begins, and takes a hundredth of a second for each of its passes.

    `deaths`: how many workers it kills before it runs; `fault`: what it raises.
    """

    kind: ClassVar[str] = "clean"
    result_type: ClassVar[type[CleanResult]] = CleanResult

    log: str
    seconds: float = 0.0
    deaths: int = 0
    fault: str = ""
    needed: tuple[PlaceJob, ...] = ()

    @property
    def inputs(self) -> tuple[Job[Any], ...]:
        return self.needed

    @property
    def size(self) -> str:
        return "1 place"

    @property
    def passes(self) -> float:
        return self.seconds * 100

    def image_size(self, resources: Resources) -> int:
        return 1_000_000

    def specification(self) -> dict[str, Any]:
        return {"label": self.label}

    def content(self, resources: Resources, results: Results) -> dict[str, Any]:
        return {}

    def needs(self, resources: Resources, content: Mapping[str, Any], results: Results) -> list[Need]:
        return []

    def run(
        self,
        resources: Resources,
        results: Results,
        on_progress: OnProgress = ignore,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Output:
        with Path(self.log).open("a") as stream:
            stream.write(f"{self.label} {os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getpid()}\n")
        if self.began() <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "fault":
            raise FaultError("a fault of the job")
        if self.fault == "no pickle":
            raise TwoWordsError("two", "words")
        if self.fault:
            raise ValueError(self.fault)
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            time.sleep(0.01)
            on_progress(Progress(1, 2))
        return Output(CleanResult(1, 1, Cost()), {})

    def began(self) -> int:
        """How often it has begun."""
        return sum(line.split()[0] == self.label for line in Path(self.log).read_text().splitlines())


@dataclass(frozen=True)
class DividedJob(PlaceJob):
    """One that can be divided into any number of parts."""

    def parts(self, count: int) -> list[Job[CleanResult]]:
        if count == 1:
            return [self]
        return [PlaceJob(f"{self.label}-{number}of{count}", self.log) for number in range(count)]

    def joined(self, outputs: Sequence[Output]) -> Output:
        return outputs[0]
