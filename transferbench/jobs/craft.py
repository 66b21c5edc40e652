"""The job that crafts adversarial points with a source alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from transferbench import attacks
from transferbench.attacks.source_attack import SourceAttack, passes_of
from transferbench.base import registry
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.progress import OnProgress, Progress, ignore
from transferbench.base.results import Cost, CraftResult, Execution
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.engine.crafting import Crafting
from transferbench.engine.memory import Rows
from transferbench.jobs.crafted_set import CraftedSetJob, attack_specification
from transferbench.jobs.evaluation import CLASSES, BatchDependentError, EvaluationJob
from transferbench.jobs.job import Job, Output, Results
from transferbench.jobs.resources import PreparedNetwork, Resources


@dataclass(frozen=True)
class CraftJob(CraftedSetJob, EvaluationJob[CraftResult]):
    """Craft one shard's points with a source-only attack; `network` is the source."""

    attack: AttackSpec
    threat: ThreatModel
    seed: int

    def _prepared(self, resources: Resources, results: Results) -> PreparedNetwork:
        return super()._prepared(resources, results)._replace(role="source")

    @property
    def inputs(self) -> tuple[Job[Any], ...]:
        return self.network.jobs

    @cached_property
    def _built(self) -> SourceAttack:
        """The attack, built for its number of tries and passes; the classes do not change them."""
        built: SourceAttack = attacks.build(self.attack, self.threat, CLASSES)
        return built

    @property
    def tries(self) -> int:
        return self._built.tries

    @property
    def passes(self) -> float:
        return self.rows * passes_of(self._built).backwards

    def parts(self, count: int) -> list[Job[CraftResult]]:
        return [self] if self.batch is not None else [replace(self, images=part) for part in self.divided(count)]

    def joined(self, outputs: Sequence[Output]) -> Output:
        results = [output.result for output in outputs if isinstance(output.result, CraftResult)]
        cost = Cost()
        for result in results:
            cost.add(result.cost)
        whole = replace(results[0], cost=cost, execution=Execution.of_all([result.execution for result in results]))
        ids = torch.cat([output.tensors["ids"] for output in outputs])
        # Points are [tries, n, ...].
        points = torch.cat([output.tensors["points"] for output in outputs], dim=1)
        return Output(whole, {"ids": ids, "points": points})

    def specification(self) -> dict[str, Any]:
        return {
            **self._place(),
            **attack_specification(self.attack, self.threat, self.seed),
        }

    def content(self, resources: Resources, results: Results) -> dict[str, Any]:
        version = registry.find("attacks", self.attack.id).load().VERSION
        return {**self._content(resources, results), "version": [version]}

    def run(
        self,
        resources: Resources,
        results: Results,
        on_progress: OnProgress = ignore,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Output:
        wanted = self.network.input(results)
        source, batch, most = resources.source(wanted, self.images.dataset, self.images.preprocessing)
        if batch is not None and self.batch is None:
            raise BatchDependentError(batch, 1)
        shard = resources.examples(self.images)
        attack = attacks.build(self.attack, self.threat, len(shard.classes))
        rows = Rows(most, resources.settings.engine.min_rows)
        # Points of a network whose answers depend on its batch are not continued in the middle of one.
        resumed = checkpoint if self.batch is None else NO_CHECKPOINT
        crafting = Crafting(source, attack, self.threat, shard, self.seed, rows, resumed)
        points = crafting.run(lambda done, n: on_progress(Progress(done, n, n)))
        forwards, backwards = passes_of(attack)
        cost = Cost(forwards=len(shard) * forwards, backwards=len(shard) * backwards)
        return Output(CraftResult(attack.tries, cost), {"ids": shard.ids.cpu(), "points": points})
