"""The job that makes universal deltas with a source alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transferbench import attacks
from transferbench.attacks.universal_attack import UniversalAttack
from transferbench.base import registry
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.progress import OnProgress, Progress, ignore
from transferbench.base.results import Cost, CraftResult
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.engine.universal import UniversalCrafting
from transferbench.jobs.crafted_set import CraftedSetJob, attack_specification
from transferbench.jobs.evaluation import CLASSES
from transferbench.jobs.inputs import AttackerImagesInput
from transferbench.jobs.job import Job, Need, Output, Results
from transferbench.jobs.networks import NetworkReference, specified
from transferbench.jobs.resources import Resources


@dataclass(frozen=True)
class UniversalJob(CraftedSetJob):
    """Make the deltas of a universal attack for the images of `dataset`; `network` is the source.

    `attacker_images`: the data set whose training images the attacker has; empty for an attack that needs none.
    """

    network: NetworkReference
    dataset: str
    preprocessing: str
    attacker_images: str
    attack: AttackSpec
    threat: ThreatModel
    seed: int

    @cached_property
    def _built(self) -> UniversalAttack:
        built: UniversalAttack = attacks.build(self.attack, self.threat, CLASSES)
        return built

    @property
    def tries(self) -> int:
        return self._built.tries

    @property
    def size(self) -> str:
        return f"{self._built.steps} steps"

    @property
    def passes(self) -> float:
        attack = self._built
        return float(attack.tries * attack.steps * max(1, attack.batch) * attack.forwards)

    def image_size(self, resources: Resources) -> int:
        return math.prod(resources.test(self.dataset, self.preprocessing).shape)

    @property
    def inputs(self) -> tuple[Job[Any], ...]:
        return self.network.jobs

    @property
    def _pool(self) -> AttackerImagesInput | None:
        if not self.attacker_images:
            return None
        return AttackerImagesInput(self.attacker_images, self.preprocessing, self.seed)

    def specification(self) -> dict[str, Any]:
        return {
            **specified(self.network),
            "dataset": self.dataset,
            **({"preprocessing": self.preprocessing} if self.preprocessing else {}),
            **({"attacker_images": self.attacker_images} if self.attacker_images else {}),
            **attack_specification(self.attack, self.threat, self.seed),
        }

    def content(self, resources: Resources, results: Results) -> dict[str, Any]:
        content = resources.circumstances()
        field = "victim" if self.network.public_id is not None else "input 0"
        content[field] = self.network.input(results).fingerprint(resources)
        if self._pool is not None:
            content["attacker images"] = self._pool.fingerprint(resources)
        return {**content, "version": [registry.find("attacks", self.attack.id).load().VERSION]}

    def needs(self, resources: Resources, content: Mapping[str, Any], results: Results) -> list[Need]:
        field = "victim" if self.network.public_id is not None else "input 0"
        found = [
            Need(self.network.input(results), content[field]),
            Need(resources.sample(self.dataset, self.preprocessing)),
        ]
        return [*found, Need(self._pool, content["attacker images"])] if self._pool is not None else found

    def run(
        self,
        resources: Resources,
        results: Results,
        on_progress: OnProgress = ignore,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Output:
        prepared = resources.source(self.network.input(results), self.dataset, self.preprocessing)
        attack = self._built
        shape = resources.images(resources.sample(self.dataset, self.preprocessing)).shape
        pool = None if self._pool is None else resources.attacker_images(self._pool).pixels
        name = (self.seed, self.threat.norm, self.threat.eps.text)
        crafting = UniversalCrafting(prepared.model, attack, shape, pool, name, resources.device, checkpoint)
        deltas = crafting.run(lambda done, steps: on_progress(Progress(done, steps)))
        passes = attack.tries * attack.steps * max(1, attack.batch)
        cost = Cost(forwards=passes * attack.forwards, backwards=passes)
        return Output(CraftResult(attack.tries, cost), {"deltas": deltas})
