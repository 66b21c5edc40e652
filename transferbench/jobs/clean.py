"""The job that counts correct predictions without an attack."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch

from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.progress import OnProgress, Progress, ignore
from transferbench.base.results import CleanResult, Cost
from transferbench.base.specifications import SHARD
from transferbench.jobs.evaluation import FORWARD, EvaluationJob
from transferbench.jobs.job import Job, Output, Results
from transferbench.jobs.resources import Resources


@dataclass(frozen=True)
class CleanJob(EvaluationJob[CleanResult]):
    """Clean accuracy on the images: the first `stop`, or the whole test split."""

    kind: ClassVar[str] = "clean"
    result_type: ClassVar[type[CleanResult]] = CleanResult

    @property
    def inputs(self) -> tuple[Job[Any], ...]:
        return self.network.jobs

    @property
    def passes(self) -> float:
        return FORWARD * self.rows * self.draws

    def specification(self) -> dict[str, Any]:
        return self._place()

    def _range(self) -> dict[str, Any]:
        return {"split": "test"} if self.images.stop is None else {"stop": self.images.stop}

    def content(self, resources: Resources, results: Results) -> dict[str, Any]:
        return {**self._content(resources, results), "version": []}

    def run(
        self,
        resources: Resources,
        results: Results,
        on_progress: OnProgress = ignore,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Output:
        target, dataset = self._target(resources, results), resources.images(self.images)
        saved = checkpoint.load() or {"correct": 0, "counted": 0}
        correct, counted = saved["correct"], saved["counted"]
        size = self.batch or SHARD
        rest = range(counted, len(dataset))
        for shard in resources.decoding.parts(dataset.select(rest), size) if rest else ():
            correct += int(torch.eq(target.judge.logits(shard.pixels, shard.ids).argmax(1), shard.labels).sum())
            counted += len(shard)
            on_progress(Progress(counted, len(dataset)))
            checkpoint.offer(partial(dict, correct=correct, counted=counted))
        return Output(CleanResult(correct, len(dataset), Cost(checks=len(dataset) * target.judge.draws)), {})
