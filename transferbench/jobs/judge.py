"""The job that shows a crafted set to a victim and counts what flips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch

from transferbench.attacks.universal_attack import applied
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.progress import OnProgress, ignore
from transferbench.base.results import Cost, FileVerdicts, JudgeResult, StoredFile
from transferbench.base.specifications import ThreatModel
from transferbench.data import Dataset
from transferbench.engine import image_files
from transferbench.engine.chain import Target
from transferbench.engine.judge import check_admissible
from transferbench.engine.verdicts import Examples
from transferbench.jobs.control import ControlJob
from transferbench.jobs.craft import CraftJob
from transferbench.jobs.crafted_set import stored_set
from transferbench.jobs.evaluation import FORWARD, EvaluationJob
from transferbench.jobs.inputs import ExamplesInput
from transferbench.jobs.job import Job, Need, Output, Results
from transferbench.jobs.resources import Resources
from transferbench.jobs.universal import UniversalJob


@dataclass(frozen=True)
class JudgeJob(EvaluationJob[JudgeResult]):
    """Judge the points of `crafted` on `network`, or its deltas on the images: clamp(x + delta, 0, 1)."""

    kind: ClassVar[str] = "judge"
    result_type: ClassVar[type[JudgeResult]] = JudgeResult

    crafted: CraftJob | UniversalJob | ControlJob

    @property
    def inputs(self) -> tuple[Job[Any], ...]:
        return (*self.network.jobs, self.crafted)

    @property
    def passes(self) -> float:
        return FORWARD * self.rows * (self.crafted.tries + 1) * self.draws

    def specification(self) -> dict[str, Any]:
        threat = self.crafted.threat
        return {**self._place(), "norm": threat.norm, "eps": threat.eps.text}

    def content(self, resources: Resources, results: Results) -> dict[str, Any]:
        content = self._content(resources, results)
        content[f"input {len(self.network.jobs)}"] = self._file(results).sha256
        return {**content, "version": [], "files": image_files.VERSION}

    def _file(self, results: Results) -> StoredFile:
        return stored_set(results, self.crafted)

    def needs(self, resources: Resources, content: Mapping[str, Any], results: Results) -> list[Need]:
        return [*super().needs(resources, content, results), Need(ExamplesInput(self._file(results)))]

    def run(
        self,
        resources: Resources,
        results: Results,
        on_progress: OnProgress = ignore,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Output:
        shard = resources.examples(self.images)
        points = points_on(shard.pixels, resources.stored(ExamplesInput(self._file(results))))
        target = self._target(resources, results)
        resumed = checkpoint if self.batch is None else NO_CHECKPOINT
        return Output(judge_points(target, self.crafted.threat, shard, points, resumed), {})


def points_on(images: torch.Tensor, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """[tries, n, ...]: the points of a crafted set, on the images' device; `tensors` are its file's."""
    if "points" in tensors:
        return tensors["points"].to(images.device)
    return torch.stack([applied(images, delta) for delta in tensors["deltas"].to(images.device)])


def judge_points(
    target: Target,
    threat: ThreatModel,
    shard: Dataset,
    points: torch.Tensor,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> JudgeResult:
    """Judge crafted points [tries, n, ...] against the shard's images. FaultError for an inadmissible point."""
    images, saved = shard.pixels, checkpoint.load() or {}
    correct, flips = saved.get("correct"), saved.get("flips", [])
    if correct is None:
        correct = torch.eq(target.judge.logits(images, shard.ids).argmax(1), shard.labels).tolist()
    for attempt in points[len(flips) :]:
        check_admissible(threat, images, attempt, shard.ids)
        wrong = torch.ne(target.judge.logits(attempt, shard.ids).argmax(1), shard.labels).tolist()
        flips.append([right and flipped for right, flipped in zip(correct, wrong, strict=True)])
        checkpoint.offer(partial(dict, correct=correct, flips=flips))
    files: tuple[FileVerdicts, ...] = ()
    checked = target.judge.checks
    if not target.batch_dependent:
        examples, fooled = Examples(images, shard.labels, shard.ids), torch.tensor(flips, device=images.device)
        files = image_files.judge_files(target.judge, examples, points, fooled)
    checks = len(shard) * (len(points) + 1) * target.judge.draws + target.judge.checks - checked
    batch = target.rows.most if target.batch_dependent else None
    return JudgeResult(tuple(correct), tuple(map(tuple, flips)), Cost(checks=checks), target.flags, batch, files)
