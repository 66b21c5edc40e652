"""What the jobs that make crafted sets share: points of one shard of images, or deltas for all images."""

from __future__ import annotations

from typing import Any, ClassVar

from transferbench.base.results import CraftResult, StoredFile
from transferbench.base.specifications import AttackSpec, Keep, ThreatModel
from transferbench.jobs.job import Job, Output, Results
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


def stored_set(results: Results, job: Job[CraftResult]) -> StoredFile:
    """The file of a set that is finished."""
    file = results.of(job).examples
    assert file is not None, "a finished crafting job has stored its points"
    return file


def attack_specification(attack: AttackSpec, threat: ThreatModel, seed: int) -> dict[str, Any]:
    """What is done with which attack, in a job's specification."""
    return {"attack": attack.as_dict(), "seed": seed, "norm": threat.norm, "eps": threat.eps.text}
