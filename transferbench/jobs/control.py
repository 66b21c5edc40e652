"""The job that makes a control of a crafted set: points as far from the images, without what the attack learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.progress import OnProgress, ignore
from transferbench.base.results import Cost, CraftResult, StoredFile
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.engine import controls
from transferbench.jobs.craft import CraftJob
from transferbench.jobs.crafted_set import CraftedSetJob, attack_specification, stored_set
from transferbench.jobs.inputs import ExamplesInput, ImagesInput
from transferbench.jobs.job import Job, Need, Output, Results
from transferbench.jobs.resources import Resources
from transferbench.jobs.universal import UniversalJob


@dataclass(frozen=True)
class ControlJob(CraftedSetJob):
    """The control `change` (engine/controls.py) of the set that `made` makes."""

    change: controls.Change
    made: CraftJob | UniversalJob

    @property
    def attack(self) -> AttackSpec:
        """What records name the control by."""
        return AttackSpec.of(self.change, of=self.made.attack.id)

    @property
    def threat(self) -> ThreatModel:
        return self.made.threat

    @property
    def seed(self) -> int:
        return self.made.seed

    @property
    def tries(self) -> int:
        return self.made.tries

    @property
    def images(self) -> ImagesInput | None:
        """The images of the points; None for deltas."""
        return self.made.images if isinstance(self.made, CraftJob) else None

    @property
    def inputs(self) -> tuple[Job[Any], ...]:
        return (self.made,)

    @property
    def size(self) -> str:
        return self.made.size if isinstance(self.made, CraftJob) else f"{self.tries} deltas"

    @property
    def passes(self) -> float:
        return 0

    def image_size(self, resources: Resources) -> int:
        return self.made.image_size(resources)

    def specification(self) -> dict[str, Any]:
        images = self.images
        return {
            **attack_specification(self.attack, self.threat, self.seed),
            **({"start": images.start, "stop": images.stop} if images is not None else {}),
            **({"stratified": True} if images is not None and images.stratified else {}),
        }

    def content(self, resources: Resources, results: Results) -> dict[str, Any]:
        content: dict[str, Any] = {"input 0": self._file(results).sha256, "version": [controls.VERSION]}
        if self.images is not None:
            content["data"] = resources.fingerprint(self.images)
        return content

    def needs(self, resources: Resources, content: Mapping[str, Any], results: Results) -> list[Need]:
        found = [Need(ExamplesInput(self._file(results)))]
        return found if self.images is None else [*found, Need(self.images, content["data"])]

    def _file(self, results: Results) -> StoredFile:
        return stored_set(results, self.made)

    def run(
        self,
        resources: Resources,
        results: Results,
        on_progress: OnProgress = ignore,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Output:
        tensors = resources.stored(ExamplesInput(self._file(results)))
        done = CraftResult(self.tries, Cost())
        if self.images is None:
            return Output(
                done, {"deltas": controls.changed_deltas(self.change, tensors["deltas"], self.threat, self.seed)}
            )
        shard = resources.images(self.images)
        points = controls.changed_points(self.change, shard, tensors["points"], self.threat, self.seed)
        return Output(done, {"ids": shard.ids.cpu(), "points": points})
