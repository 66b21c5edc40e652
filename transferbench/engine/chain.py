"""Runs one chain against one model: clean predictions, pool, verdicts, cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from transferbench import attacks
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.settings import ENGINE, EngineOptions
from transferbench.base.specifications import Chain
from transferbench.engine import preflight
from transferbench.engine.judge import Judge, floor_of
from transferbench.engine.memory import Rows
from transferbench.engine.pool import Pool
from transferbench.engine.row_counter import RowCounter
from transferbench.engine.search_model import SearchModel, as_is, copy_of
from transferbench.engine.verdicts import ChainResult, Examples, Hits, OnSettled, VerdictTable


def default_slots(dimension: int) -> int:
    """The default number of rows in flight for images of `dimension` entries: 64 at 3x32x32, between 32 and 256."""
    return min(256, max(32, 196_608 // dimension))


@dataclass
class Target:
    """A model prepared for any number of chains: its judge, its search model and its pre-flight flags.

    `batch_size` is the requested one (None: by the images' size), `rows` the one in use (lower after an out-of-memory
    error), `preflight` the number of rows that passed through the model and its copies during the preparation.
    """

    judge: Judge
    search: SearchModel
    num_classes: int
    flags: tuple[str, ...]
    batch_size: int | None
    rows: Rows
    preflight: int
    _clean: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        batch_size: int | None = None,
        options: EngineOptions = ENGINE,
    ) -> Target:
        """Run the pre-flight on the first images and build the search model.

        InputError when the pre-flight refuses the model or the examples.
        """
        sample = x[: options.preflight_rows]
        report = preflight.check_model(model, sample, y[: options.preflight_rows])
        preflight.check_labels(y, report.num_classes)
        copyable = report.copyable and options.search_copy
        search = copy_of(model, sample) if copyable else as_is(model, options.min_rows)
        counter = RowCounter(model)
        floor = floor_of(counter, sample) if copyable else options.min_rows
        return cls(
            Judge(model, batch_size or 256, floor),
            search,
            report.num_classes,
            report.flags,
            batch_size,
            Rows(batch_size or default_slots(x[0].numel()), search.floor),
            report.rows + search.rows + counter.rows,
        )

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
    built = [attacks.build(spec, chain.threat, target.num_classes) for spec in chain.attacks]
    logits = target.clean_logits(x, ids)
    table = VerdictTable(examples, logits.argmax(1))
    robust = table.robust
    pool = Pool(built, chain.threat, target.search, target.judge, target.rows, seed)
    if len(robust):
        outcome = pool.run(examples.at(robust), logits[robust], on_progress, checkpoint)
        for number, attack in enumerate(built):
            ranks = [rank for rank, owner in enumerate(pool.owner) if owner == number]
            rows = torch.isin(outcome.rank, torch.tensor(ranks, device=x.device)).nonzero().flatten()
            hits = Hits(outcome.points[rows], outcome.pred[rows], outcome.distance[rows], outcome.tie[rows])
            table.add_hits(attack.id, outcome.rank[rows].tolist(), robust[rows], hits)
            spent = {name: int(values[ranks].sum()) for name, values in vars(outcome.spent).items()}
            table.close_attack(attack.id, len(ranks), spent)
    return table.result(target.judge.checks - checked, time.perf_counter() - began)
