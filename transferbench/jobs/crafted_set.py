"""What the jobs that make crafted sets share: points of one shard of images, or deltas for all images."""

from __future__ import annotations

from typing import ClassVar, Protocol

from transferbench.base.results import CraftResult
from transferbench.base.specifications import AttackSpec, Keep, ThreatModel
from transferbench.jobs.job import Job, Output
from transferbench.store.store import Store


class CraftedSetJob(Job[CraftResult]):
    """A job whose file holds `points` [tries, n, ...] with their `ids`, or `deltas` [tries, C, H, W]."""

    kind: ClassVar[str] = "craft"
    result_type: ClassVar[type[CraftResult]] = CraftResult

    def keep(self, store: Store, key: str, output: Output) -> CraftResult:
        assert isinstance(output.result, CraftResult)
        return store.with_examples(output.result, key, output.tensors)

    def is_intact(self, result: CraftResult, store: Store, keep: Keep) -> bool:
        # Other jobs read the set: a damaged file must be found now and not then.
        return result.examples is not None and store.has_examples(result.examples)


class CraftedSet(Protocol):
    """What a judging job needs to know of the job that made its set."""

    @property
    def attack(self) -> AttackSpec: ...
    @property
    def threat(self) -> ThreatModel: ...
    @property
    def seed(self) -> int: ...
    @property
    def tries(self) -> int: ...
