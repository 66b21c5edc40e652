"""One chain against one model on some examples: clean prediction, pool, verdicts, cost."""

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
from transferbench.engine.pool import OnProgress, Pool
from transferbench.engine.row_counter import Counted
from transferbench.engine.search_model import SearchModel, as_is, copy_of
from transferbench.engine.verdicts import ChainResult, Examples, Hits, Tally


def default_slots(dimension: int) -> int:
    """Rows in flight on a CPU: 64 at 3x32x32, more for smaller images, up to 256. Verdicts do not depend on it."""
    return min(256, max(32, 196_608 // dimension))


@dataclass
class Target:
    """A model prepared for evaluation once and used for many chains: its judge, its search model, its flags.

    `batch_size` as requested (None: by the images' size), `rows` the batch in use (memory may lower it), `preflight`
    the rows that went through the model and its copies while it was prepared.
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
        """Run pre-flight on the first images. InputError when it refuses the model or the examples."""
        rows = x[: options.preflight_rows]
        looked = preflight.check_model(model, rows, y[: options.preflight_rows])
        preflight.check_labels(y, looked.num_classes)
        copyable = looked.copyable and options.search_copy
        search = copy_of(model, rows) if copyable else as_is(model, options.min_rows)
        asked = Counted(model)
        floor = floor_of(asked, rows) if copyable else options.min_rows
        in_flight = Rows(batch_size or default_slots(x[0].numel()), search.floor)
        return cls(
            Judge(model, batch_size or 256, floor),
            search,
            looked.num_classes,
            looked.flags,
            batch_size,
            in_flight,
            looked.rows + search.rows + asked.rows,
        )

    def clean_logits(self, x: Tensor, ids: Tensor) -> Tensor:
        """The original model's logits on x, computed once for all chains that attack the same images."""
        if self._clean is None or self._clean[0] is not x:
            self._clean = (x, self.judge.logits(x, ids))
        return self._clean[1]


def run_chain(
    target: Target,
    chain: Chain,
    examples: Examples,
    seed: int,
    on_progress: OnProgress | None = None,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> ChainResult:
    """Attack the examples; those that are wrong on the clean image count as fooled."""
    x, ids = examples.x, examples.ids
    began, checked = time.perf_counter(), target.judge.checks
    built = [attacks.build(spec, chain.threat, target.num_classes) for spec in chain.attacks]
    logits = target.clean_logits(x, ids)
    tally = Tally(examples, logits.argmax(1))
    standing = tally.left
    pool = Pool(built, chain.threat, target.search, target.judge, target.rows, seed)
    if len(standing):
        swept = pool.run(examples.at(standing), logits[standing], on_progress, checkpoint)
        for number, attack in enumerate(built):
            ranks = [rank for rank, owner in enumerate(pool.owner) if owner == number]
            mine = torch.isin(swept.rank, torch.tensor(ranks, device=x.device)).nonzero().flatten()
            tally.fooled(
                attack.id,
                swept.rank[mine].tolist(),
                standing[mine],
                Hits(swept.points[mine], swept.pred[mine], swept.distance[mine], swept.tie[mine]),
            )
            spent = {name: int(getattr(swept.spent, name)[ranks].sum()) for name in swept.spent.__dataclass_fields__}
            tally.attack_done(attack.id, len(ranks), spent)
    return tally.result(target.judge.checks - checked, time.perf_counter() - began)
