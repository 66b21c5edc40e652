"""Runs one chain against one model: clean predictions, pool, verdicts, cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from transferbench import attacks
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.settings import ENGINE, EngineOptions
from transferbench.base.specifications import Chain
from transferbench.engine import draws, preflight
from transferbench.engine.bf16 import NEAR, in_bf16
from transferbench.engine.final_judgement import judge_again
from transferbench.engine.judge import Judge, floor_of
from transferbench.engine.memory import Rows, rows_that_fit
from transferbench.engine.pool import PassOptions, Pool, PoolResult
from transferbench.engine.row_counter import RowCounter
from transferbench.engine.row_flags import RowFlags
from transferbench.engine.row_independence import SHARE
from transferbench.engine.search_model import SearchModel, as_is, copy_of
from transferbench.engine.verdicts import ChainResult, Examples, Hits, OnSettled, VerdictTable

VERSION = 4
"""Part of every job's key: raised when the engine would decide a verdict, a flag or a count differently."""


def default_slots(dimension: int) -> int:
    """The default number of rows in flight for images of `dimension` entries: 64 at 3x32x32, between 32 and 256."""
    return min(256, max(32, 196_608 // dimension))


@dataclass
class Target:
    """A model prepared for any number of chains: its judge, its search model and its pre-flight flags.

    `precise` is the search model in fp32 where `search` is in bf16. `batch_size` is the requested one (None: by the
    images' size), `rows` the one in use (lower after an out-of-memory error), `preflight` the number of rows that
    passed through the model and its copies during the preparation.
    `batch_dependent`: verdicts belong to one batch size and order (preflight.BATCH_DEPENDENT); `share`: the share of
    the logit range up to which a difference between two batches is rounding.
    """

    judge: Judge
    search: SearchModel
    num_classes: int
    flags: tuple[str, ...]
    batch_size: int | None
    rows: Rows
    preflight: int
    batch_dependent: bool = False
    share: float = SHARE
    precise: SearchModel | None = None
    _clean: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    @classmethod
    def prepare(
        cls,
        model: object,
        x: Tensor,
        y: Tensor,
        batch_size: int | None = None,
        options: EngineOptions = ENGINE,
    ) -> Target:
        """Run the pre-flight on the first images and build the search model.

        InputError when the pre-flight refuses the model (a module or a function) or the examples.
        """
        sample, most = x[: options.preflight_rows], batch_size or default_slots(x[0].numel())
        report = preflight.check_model(model, x, y, most, options.preflight_rows)
        model = report.model
        preflight.check_labels(y, report.num_classes)
        copyable = options.search_copy and not report.batch_dependent
        search = copy_of(model, sample) if copyable else as_is(model, options.min_rows)
        precise = None
        if options.precision == "bf16" and not report.batch_dependent:
            search, precise = in_bf16(search, model, sample), search
        if x.is_cuda and batch_size is None and not report.batch_dependent:
            most = rows_that_fit(search.network, sample)
        counter = RowCounter(model)
        floor = floor_of(counter, sample) if copyable else options.min_rows
        return cls(
            Judge(model, batch_size or 256, floor, draws.JUDGE if "randomised" in report.flags else 1),
            search,
            report.num_classes,
            report.flags,
            batch_size,
            Rows(most, search.floor),
            report.rows + search.rows + counter.rows,
            report.batch_dependent,
            report.share,
            precise,
        )

    @property
    def randomised(self) -> bool:
        """Whether two calls on the same images differ: gradients and verdicts are means of draws."""
        return self.judge.draws > 1

    def depend_on_batch(self) -> None:
        """Attack the model as it is from now on: its answers were found to depend on its batch."""
        if not self.batch_dependent:
            self.batch_dependent = True
            self.precise = None
            self.search = as_is(self.judge.model, max(self.search.floor, self.judge.floor))
            self.flags = tuple(sorted({*self.flags, "mixes-rows"}))

    def clean_logits(self, x: Tensor, ids: Tensor) -> Tensor:
        """[n, C]: the original model's logits on x; cached, because all chains attack the same images."""
        if self._clean is None or self._clean[0] is not x:
            self._clean = (x, self.judge.logits(x, ids))
        return self._clean[1]


def run_chain(
    target: Target,
    chain: Chain,
    examples: Examples,
    seed: int,
    on_progress: OnSettled | None = None,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> ChainResult:
    """Run a chain's attacks in order, continuing from the checkpoint; misclassified clean images count as fooled."""
    x, ids = examples.x, examples.ids
    began, checked = time.perf_counter(), target.judge.checks
    built = attacks.build_chain(chain, target.num_classes)
    logits = target.clean_logits(x, ids)
    table = VerdictTable(examples, logits.argmax(1))
    robust = table.robust
    options = [
        PassOptions(draws.eot_of(spec, target.randomised), str(dict(spec.params).get("order", "logits")))
        for spec in chain.attacks
    ]
    pool = Pool(built, chain.threat, target.search, target.judge, target.rows, seed, options)
    searched_again = 0
    if len(robust):
        outcome = pool.run(examples.at(robust), logits[robust], on_progress, checkpoint)
        again = ((outcome.rank < 0) & (outcome.margin < NEAR)).nonzero().flatten()
        if target.precise is not None and len(again):
            outcome = _search_again(pool, outcome, again, target.precise)
            searched_again = len(again)
        for number, attack in enumerate(built):
            ranks = [rank for rank, owner in enumerate(pool.owner) if owner == number]
            rows = torch.isin(outcome.rank, torch.tensor(ranks, device=x.device)).nonzero().flatten()
            hits = Hits(outcome.points[rows], outcome.pred[rows], outcome.distance[rows], outcome.tie[rows])
            table.add_hits(attack.id, outcome.rank[rows].tolist(), robust[rows], hits)
            spent = {name: int(values[ranks].sum()) for name, values in vars(outcome.spent).items()}
            table.close_attack(attack.id, len(ranks), spent)
    result = table.result(target.judge.checks - checked, time.perf_counter() - began)
    result.precision, result.searched_again = target.search.precision, searched_again
    result.eot = tuple(part.draws for part in options)
    return result


def _search_again(pool: Pool, outcome: PoolResult, again: Tensor, precise: SearchModel) -> PoolResult:
    """The outcome with the examples at the positions `again`, which a search in bf16 left near the decision boundary,
    searched once more in fp32. Both searches' passes are counted."""
    examples = Examples(pool.x, pool.y, pool.ids).at(again)
    second = Pool(pool.attacks, pool.threat, precise, pool.judge, pool.rows, pool.seed, pool.options)
    found = second.run(examples, pool.clean_logits[again])
    for name in ("rank", "points", "pred", "tie", "distance", "margin"):
        getattr(outcome, name)[again] = getattr(found, name)
    for name, values in vars(outcome.spent).items():
        values += getattr(found.spent, name)
    return outcome


class MixedRowsError(Exception):
    """The model's answers to its end points depend on the batch, `args[0]` of them: all examples must be attacked
    together."""


Engine = Callable[[Target, Chain, Examples, int, OnSettled | None, Checkpoint], ChainResult]


def run_flagged(
    engine: Engine,
    target: Target,
    chain: Chain,
    examples: Examples,
    seed: int,
    on_progress: OnSettled | None = None,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> ChainResult:
    """Run a chain on an engine (`run_chain`, the reference, its replay) and count suspicions over every attacked row.

    A model whose verdicts belong to one batch is not continued from a checkpoint. One that is found to mix rows at its
    end points only is marked, and MixedRowsError tells the caller to attack all examples again.
    """
    result = engine(target, chain, examples, seed, on_progress, NO_CHECKPOINT if target.batch_dependent else checkpoint)
    if target.randomised:
        judge_again(target.judge, chain.threat, examples, result)
    counted, began = RowFlags(), time.perf_counter()
    attacked = torch.tensor([verdict.attack != "clean" for verdict in result.verdicts], device=examples.x.device)
    x, y, ids = examples.at(attacked.nonzero().flatten())
    if len(x):
        before = target.judge.checks
        counted.add_clean(target.judge.model, x, y, Rows(target.rows.most, target.judge.floor))
        if not target.batch_dependent:
            counted.add_end_points(target.judge, result.points[attacked], ids, target.share)
            # In one batch of the size that their logits came from.
            earlier = target.clean_logits(examples.x, examples.ids)[: target.judge.rows.most]
            counted.add_later_answers(target.judge, examples.x[: target.judge.rows.most], earlier)
        result.cost.checks += counted.checks + target.judge.checks - before
    if counted.counts["mixes-rows"] and not target.batch_dependent:
        target.depend_on_batch()
        raise MixedRowsError(counted.counts["mixes-rows"])
    result.cost.seconds += time.perf_counter() - began
    masked = ("gradients-masked",) if preflight.gradients_masked(result.by_attack) else ()
    result.flags = tuple(sorted({*target.flags, *counted.found, *counted.others, *masked}))
    result.flag_rows, result.batch = counted.found, target.rows.most if target.batch_dependent else None
    return result


def run_whole(
    engine: Engine, target: Target, chain: Chain, examples: Examples, seed: int, on_progress: OnSettled | None = None
) -> ChainResult:
    """`run_flagged` for all examples of a chain: a model that is found to mix rows is attacked again as such."""
    try:
        return run_flagged(engine, target, chain, examples, seed, on_progress)
    except MixedRowsError as error:
        result = run_flagged(engine, target, chain, examples, seed, on_progress)
        result.flag_rows = {**result.flag_rows, "mixes-rows": error.args[0]}
        return result
