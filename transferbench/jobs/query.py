"""The job that attacks a victim with a few queries, by an attacker who holds the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from transferbench import attacks
from transferbench.attacks.query_attack import QueryAttack
from transferbench.base import registry
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.errors import InputError
from transferbench.base.progress import OnProgress, Progress, ignore
from transferbench.base.results import Cost, Execution, QueryResult, StoredFile
from transferbench.base.specifications import AttackSpec, Keep, ThreatModel
from transferbench.data import Dataset
from transferbench.engine.memory import Rows
from transferbench.engine.querying import Querying
from transferbench.engine.verdicts import Examples
from transferbench.jobs.craft import CraftJob
from transferbench.jobs.crafted_set import attack_specification, stored_set
from transferbench.jobs.evaluation import CLASSES, FORWARD, BatchDependentError, EvaluationJob
from transferbench.jobs.inputs import ExamplesInput
from transferbench.jobs.job import Job, Need, Output, Results
from transferbench.jobs.networks import NetworkReference, specified
from transferbench.jobs.resources import PreparedNetwork, Resources
from transferbench.store.store import Store


@dataclass(frozen=True)
class QueryJob(EvaluationJob[QueryResult]):
    """Attack `network` on one shard with a query attack that holds `source`.

    `crafted`: the job that makes the points where the attack starts, its first try's, on images that hold this job's.
    InputError where the attack needs them and there are none, or the other way round.
    """

    kind: ClassVar[str] = "query"
    result_type: ClassVar[type[QueryResult]] = QueryResult

    source: NetworkReference
    attack: AttackSpec
    threat: ThreatModel
    seed: int
    crafted: CraftJob | None = None

    def __post_init__(self) -> None:
        id, crafted = self.attack.id, self.crafted
        if crafted is None and self._built.begins == "crafted":
            raise InputError(f"attack {id} starts at crafted points: name the attack that makes them")
        if crafted is not None and self._built.begins == "image":
            raise InputError(f"attack {id} starts at the image, or has a start of its own: it takes no crafted points")
        if crafted is not None and (crafted.threat, crafted.images.dataset) != (self.threat, self.images.dataset):
            raise InputError(f"attack {id}: the crafted points are of another threat or data set")

    @cached_property
    def _built(self) -> QueryAttack:
        """The attack, built for its budget; the classes do not change it."""
        built: QueryAttack = attacks.build(self.attack, self.threat, CLASSES)
        if built.scope != "query":
            raise InputError(f"attack {self.attack.id} asks no queries")
        return built

    @property
    def inputs(self) -> tuple[Job[Any], ...]:
        return (*self.network.jobs, *self.source.jobs, *(() if self.crafted is None else (self.crafted,)))

    @property
    def passes(self) -> float:
        return self.rows * (FORWARD * self.draws * (self._built.queries + 1) + self._built.passes)

    def parts(self, count: int) -> list[Job[QueryResult]]:
        return [self] if self.batch is not None else [replace(self, images=part) for part in self.divided(count)]

    def joined(self, outputs: Sequence[Output]) -> Output:
        results = [output.result for output in outputs if isinstance(output.result, QueryResult)]
        cost = Cost()
        for result in results:
            cost.add(result.cost)
        whole = replace(
            results[0],
            queries=tuple(number for result in results for number in result.queries),
            cost=cost,
            flags=tuple(sorted({flag for result in results for flag in result.flags})),
            execution=Execution.of_all([result.execution for result in results]),
        )
        most = _most(Keep.parse(whole.kept))
        tensors = {name: torch.cat([output.tensors[name] for output in outputs])[:most] for name in ("ids", "points")}
        return Output(whole, tensors)

    def specification(self) -> dict[str, Any]:
        return {
            **self._place(),
            **specified(self.source, "source"),
            **attack_specification(self.attack, self.threat, self.seed),
        }

    def content(self, resources: Resources, results: Results) -> dict[str, Any]:
        content = self._content(resources, results)
        content[self._source_field] = self.source.input(results).fingerprint(resources)
        if self.crafted is not None:
            content[f"input {len(self.inputs) - 1}"] = self._file(results).sha256
        return {**content, "version": [registry.find("attacks", self.attack.id).load().VERSION]}

    @property
    def _source_field(self) -> str:
        return "source" if self.source.public_id is not None else f"input {len(self.network.jobs)}"

    def _file(self, results: Results) -> StoredFile:
        assert self.crafted is not None
        return stored_set(results, self.crafted)

    def needs(self, resources: Resources, content: Mapping[str, Any], results: Results) -> list[Need]:
        needs = [
            *super().needs(resources, content, results),
            Need(self.source.input(results), content[self._source_field]),
        ]
        return needs if self.crafted is None else [*needs, Need(ExamplesInput(self._file(results)))]

    def adapted(self, resources: Resources, results: Results) -> Self:
        """Also where another job has found out that the victim's answers depend on its batch."""
        form = resources.batch_form(super()._prepared(resources, results))
        return super().adapted(resources, results) if form is None else replace(self, batch=form[0], draws=form[1])

    def _prepared(self, resources: Resources, results: Results) -> PreparedNetwork:
        # A form of its own: where the source's answers depend on the batch, other jobs about the victim do not change.
        fingerprint = self.source.input(results).fingerprint(resources)
        return super()._prepared(resources, results)._replace(role=f"queried with {self.source.name} {fingerprint}")

    def run(
        self,
        resources: Resources,
        results: Results,
        on_progress: OnProgress = ignore,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Output:
        target = resources.target(self.network.input(results), *self._sample_images)
        source, batch, most = resources.source(self.source.input(results), *self._sample_images)
        if target.batch_dependent:
            batch = target.rows.most
        if batch is not None and self.batch is None:
            raise BatchDependentError(batch, target.judge.draws)
        shard = resources.examples(self.images)
        attack: QueryAttack = attacks.build(self.attack, self.threat, len(shard.classes))
        rows = Rows(self.batch or most, resources.settings.engine.min_rows)
        # What depends on the batch is not continued in the middle of one.
        resumed = checkpoint if self.batch is None else NO_CHECKPOINT
        querying = Querying(target.judge, source, attack, self.threat, self.seed, rows, resumed)
        examples = Examples(shard.pixels, shard.labels, shard.ids)
        done = querying.run(
            examples,
            self._begin(resources, results, shard),
            lambda settled, robust: on_progress(Progress(settled, len(shard), robust)),
        )
        keep = resources.settings.keep
        result = QueryResult(
            queries=tuple(done.queries),
            budget=attack.queries,
            cost=done.cost,
            flags=target.flags,
            kept=str(keep),
            batch=self.batch,
        )
        kept = [at for at, number in enumerate(done.queries) if keep.rule == "all" or number > 0][: _most(keep)]
        return Output(result, {"ids": shard.ids.cpu()[kept], "points": done.points[kept]})

    def _begin(self, resources: Resources, results: Results, shard: Dataset) -> Tensor:
        """[n, ...]: where the rows start."""
        if self.crafted is None:
            return shard.pixels
        first = self.images.start - self.crafted.images.start
        crafted = resources.stored(ExamplesInput(self._file(results)))["points"][0, first : first + len(shard)]
        if len(crafted) != len(shard):
            raise InputError(f"{self.label}: the crafted points are of other images")
        return crafted.to(resources.device)

    def keep(self, store: Store, key: str, output: Output) -> QueryResult:
        result = output.result
        assert isinstance(result, QueryResult)
        return result if result.kept == "none" else store.with_examples(result, key, output.tensors)

    def is_intact(self, result: QueryResult, store: Store, keep: Keep) -> bool:
        if not Keep.parse(result.kept).covers(keep):
            return False
        return result.examples is None or store.has_examples(result.examples)

    def end_points(self, keep: Keep) -> int:
        most = _most(keep)
        return self.rows if most is None else min(self.rows, most)


def _most(keep: Keep) -> int | None:
    """How many end points of a shard are kept at most."""
    return None if keep.rule in ("all", "fooled") else keep.count
