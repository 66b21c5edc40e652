"""The job that says of every image whether it is classified correctly, without an attack."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch

from transferbench.base.bits import pack_bits
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.progress import OnProgress, ignore
from transferbench.base.results import CorrectResult, Cost
from transferbench.base.specifications import SHARD
from transferbench.jobs.evaluation import FORWARD, EvaluationJob
from transferbench.jobs.job import Job, Output, Results
from transferbench.jobs.resources import Resources


@dataclass(frozen=True)
class CorrectJob(EvaluationJob[CorrectResult]):
    """The correct ones among the first `stop` images, of clean or of corrupted images.

    `prepared_on` (data set, preprocessing): the images on which the network goes through pre-flight, where they are not
    the job's own. The corrupted images of a benchmark are many data sets, of which the network knows the clean one.
    """

    kind: ClassVar[str] = "correct"
    result_type: ClassVar[type[CorrectResult]] = CorrectResult

    prepared_on: tuple[str, str] | None = field(default=None, kw_only=True)

    @property
    def inputs(self) -> tuple[Job[Any], ...]:
        return self.network.jobs

    @property
    def passes(self) -> float:
        return FORWARD * self.rows * self.draws

    def specification(self) -> dict[str, Any]:
        return self._place()

    def content(self, resources: Resources, results: Results) -> dict[str, Any]:
        return {**self._content(resources, results), "version": []}

    @property
    def _sample_images(self) -> tuple[str, str]:
        return self.prepared_on or super()._sample_images

    def run(
        self,
        resources: Resources,
        results: Results,
        on_progress: OnProgress = ignore,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Output:
        target, dataset = self._target(resources, results), resources.images(self.images)
        correct: list[bool] = (checkpoint.load() or {"correct": []})["correct"]
        size = self.batch or SHARD
        rest = range(len(correct), len(dataset))
        for shard in resources.decoding.parts(dataset.select(rest), size) if rest else ():
            correct += torch.eq(target.judge.logits(shard.pixels, shard.ids).argmax(1), shard.labels).tolist()
            checkpoint.offer(partial(dict, correct=list(correct)))
        result = CorrectResult(
            pack_bits(correct),
            len(correct),
            target.flags,
            Cost(checks=len(correct) * target.judge.draws),
            batch=self.batch,
        )
        return Output(result, {})
