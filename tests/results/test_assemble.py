"""Records of the results of jobs."""

from __future__ import annotations

from transferbench.base.results import Cost, JudgeResult
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.results import assemble
from transferbench.results.records import Bits


def test_a_flip_counts_where_the_chains_batch_has_the_image_right_too() -> None:
    """A victim whose answers depend on its batch was right on the third image among those of its shard only."""
    shards = [
        JudgeResult((True, True), ((True, False),), Cost()),
        JudgeResult((True, False), ((True, False),), Cost()),
    ]
    clean = Bits.of([True, True, False, False])
    record = assemble.crafted_record("s", ThreatModel.parse("Linf", "0.1"), AttackSpec.of("source-pgd"), shards, clean)
    assert record.flips[0].list() == [True, False, False, False]
