"""The job that runs one chain against one network on one shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from importlib import metadata
from typing import Any, ClassVar, Literal

import torch

from transferbench import attacks
from transferbench.base import registry
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.progress import OnProgress, Progress, ignore
from transferbench.base.results import AttackResult, AttackTally, Cost, Execution, FileVerdicts
from transferbench.base.specifications import Chain, Keep
from transferbench.engine import image_files
from transferbench.engine.chain import Engine, MixedRowsError, run_chain, run_flagged
from transferbench.engine.judge import Judge
from transferbench.engine.reference import BATCH_SIZE, run_reference
from transferbench.engine.verdicts import ChainResult, Examples
from transferbench.jobs.evaluation import CLASSES, BatchDependentError, EvaluationJob
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.job import Job, Output, Results
from transferbench.jobs.resources import Resources
from transferbench.store.store import Store

EngineName = Literal["transferbench", "autoattack"]
ENGINES: dict[EngineName, Engine] = {"transferbench": run_chain, "autoattack": run_reference}


@dataclass(frozen=True)
class AttackJob(EvaluationJob[AttackResult]):
    """Attack `network` with a chain on test images; `backend` is the engine that runs it.

    `whole`: all images of the chain, of which `images` are one shard. A network whose answers depend on its batch is
    attacked on all of them in one job.
    """

    kind: ClassVar[str] = "attack"
    result_type: ClassVar[type[AttackResult]] = AttackResult

    chain: Chain
    seed: int
    backend: EngineName = "transferbench"
    whole: ImagesInput | None = None

    def adapted(self, resources: Resources, results: Results) -> AttackJob:
        job = super().adapted(resources, results)
        return job if job is self else replace(job, images=self.whole or self.images)

    @property
    def inputs(self) -> tuple[Job[Any], ...]:
        return self.network.jobs

    @property
    def passes(self) -> float:
        built = [attacks.build(spec, self.chain.threat, CLASSES) for spec in self.chain.attacks]
        return self.rows * self.draws * sum(attack.tries * attack.passes for attack in built)

    def parts(self, count: int) -> list[Job[AttackResult]]:
        # A network whose answers depend on its batch, and the reference's batches, are not divided.
        if self.batch is not None or self.backend != "transferbench":
            return [self]
        return [replace(self, images=part) for part in self.divided(count)]

    def joined(self, outputs: Sequence[Output]) -> Output:
        results = [output.result for output in outputs if isinstance(output.result, AttackResult)]
        first, cost = results[0], Cost()
        for result in results:
            cost.add(result.cost)
        # A part without a clean-correct example has no attacks.
        tallies = [result.by_attack for result in results if result.by_attack]
        by_attack = tuple(reduce(AttackTally.plus, parts) for parts in zip(*tallies, strict=True))
        flags = {flag for result in results for flag in result.flags}
        flag_rows = Counter[str]()
        for result in results:
            flag_rows.update(result.flag_rows)
        files = zip(*(result.files for result in results), strict=True)
        whole = replace(
            first,
            verdicts=tuple(verdict for result in results for verdict in result.verdicts),
            by_attack=by_attack,
            cost=cost,
            flags=tuple(sorted(flags)),
            flag_rows=dict(flag_rows),
            searched_again=None if first.searched_again is None else sum(one.searched_again or 0 for one in results),
            folded=all(result.folded for result in results),
            halvings=max(result.halvings for result in results),
            execution=Execution.of_all([result.execution for result in results]),
            files=tuple(reduce(FileVerdicts.plus, parts) for parts in files),
        )
        keep = Keep.parse(whole.kept)
        most = None if keep.rule in ("all", "fooled") else keep.count
        tensors = {name: torch.cat([output.tensors[name] for output in outputs])[:most] for name in outputs[0].tensors}
        return Output(whole, tensors)

    def specification(self) -> dict[str, Any]:
        return {
            **self._place(),
            "chain": self.chain.as_dict(),
            "seed": self.seed,
            **({"backend": self.backend} if self.backend != "transferbench" else {}),
        }

    def content(self, resources: Resources, results: Results) -> dict[str, Any]:
        content = {**self._content(resources, results), "files": image_files.VERSION}
        # Only attacks search; their engine alone does it in another precision.
        if self.backend == "transferbench":
            content["precision"] = resources.settings.engine.precision
        else:
            content["version"] = metadata.version("pyautoattack")
            # The reference's random starts depend on its batches.
            content["batch"] = resources.settings.batch_size or BATCH_SIZE
            return content
        content["version"] = [registry.find("attacks", spec.id).load().VERSION for spec in self.chain.attacks]
        return content

    def run(
        self,
        resources: Resources,
        results: Results,
        on_progress: OnProgress = ignore,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Output:
        target = self._target(resources, results)
        shard = resources.examples(self.images)
        examples = Examples(shard.pixels, shard.labels, shard.ids)

        def report(settled: int, robust: int) -> None:
            on_progress(Progress(settled, len(shard), robust))

        try:
            done = run_flagged(ENGINES[self.backend], target, self.chain, examples, self.seed, report, checkpoint)
        except MixedRowsError:
            # Found at the end points only.
            raise BatchDependentError(target.rows.most, target.judge.draws) from None
        keep = resources.settings.keep
        checked = target.judge.checks
        files = () if target.batch_dependent else _as_files(target.judge, done, examples)
        done.cost.checks += target.judge.checks - checked
        result = AttackResult(
            verdicts=tuple(done.verdicts),
            by_attack=tuple(done.by_attack),
            cost=done.cost,
            flags=done.flags,
            flag_rows=done.flag_rows,
            batch=done.batch,
            draws=done.draws,
            searched_again=done.searched_again if done.precision == "bf16" else None,
            folded=target.search.folded,
            halvings=target.rows.halvings,
            kept=str(keep),
            files=files,
        )
        return Output(result, _end_points(done, examples, keep))

    def keep(self, store: Store, key: str, output: Output) -> AttackResult:
        result = output.result
        assert isinstance(result, AttackResult)
        if result.kept == "none":
            return result
        return store.with_examples(result, key, output.tensors)

    def is_intact(self, result: AttackResult, store: Store, keep: Keep) -> bool:
        if not Keep.parse(result.kept).covers(keep):
            return False
        return result.examples is None or store.has_examples(result.examples)

    def end_points(self, keep: Keep) -> int:
        rows = (self.images.stop or 0) - self.images.start
        return {"none": 0, "sample": min(rows, keep.count)}.get(keep.rule, rows)


def _as_files(judge: Judge, done: ChainResult, examples: Examples) -> tuple[FileVerdicts, ...]:
    fooled = torch.tensor([verdict.rank >= 0 for verdict in done.verdicts], device=examples.x.device)
    return image_files.judge_files(judge, examples, done.points[None], fooled[None])


def _end_points(done: ChainResult, examples: Examples, keep: Keep) -> dict[str, torch.Tensor]:
    """ids int64 [k] and points [k, ...] of the rows that are to be kept."""
    every = range(len(done.verdicts))
    positions = list(every) if keep.rule == "all" else [at for at in every if done.verdicts[at].rank >= 0]
    if keep.rule in ("sample", "none"):
        positions = positions[: keep.count]
    at = torch.tensor(positions, dtype=torch.int64)
    return {"ids": examples.ids.cpu()[at], "points": done.points[at.to(done.points.device)].cpu()}
